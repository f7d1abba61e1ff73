"""Scores of images that were made of known classes: whether each is of its class, and like the real ones of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modtrain.metrics.distribution import frechet_distance

LEAST_OF_CLASS = 8
"""Images that each class needs on both sides."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of two sets of images that are compared class by class."""

    names: tuple[str, ...]
    images: Tensor
    """int64 (N,): numbers in `names`; -1 is an unknown class."""
    reference: Tensor
    """The same of the real images."""

    @property
    def smallest(self) -> tuple[str, int]:
        """The class that has the fewest images on either side, and how many."""
        counts = [torch.bincount(each[each >= 0], minlength=len(self.names)) for each in (self.images, self.reference)]
        fewest = torch.minimum(*counts)
        return self.names[int(fewest.argmin())], int(fewest.min())

    def columns(self, known: tuple[str, ...]) -> Tensor:
        """The number in `known`, the classes of a classifier, of the class of each image, int64 (N,)."""
        return torch.tensor([*map(known.index, self.names), -1])[self.images]


def intra_class_frechet_distance(
    features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor
) -> float:
    """Intra-class FID: the mean over the classes of the reference of the Fréchet distance within the class.

    Miyato and Koyama 2018, "cGANs with Projection Discriminator", section 5. Unlike FID it sees images of the wrong
    class, and classes without variety. Raises InputError where a class has fewer than two images.
    """
    present = sorted(set(reference_labels.tolist()) - {-1})
    distances = [frechet_distance(features[labels == each], reference[reference_labels == each]) for each in present]
    return sum(distances) / len(distances)


def halves_by_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of a random half of the images of each class, always the same, and those of the other half."""
    draws, halves = torch.Generator().manual_seed(0), list[tuple[Tensor, ...]]()
    for label in sorted(set(labels.tolist()) - {-1}):
        places = (labels == label).nonzero().flatten()
        halves.append(places[torch.randperm(len(places), generator=draws)].tensor_split(2))
    first, second = (torch.cat(parts) for parts in zip(*halves, strict=True))
    return first, second
