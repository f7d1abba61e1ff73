"""Identification: which of the known classes, such as persons, an image shows, and which classes a set of images has.

Labels are int64 (N,); those below 0 are unknown, and such images are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of images whose largest logit, of (N, classes), is at their label; a scalar, NaN where none is known."""
    known = labels >= 0
    return (logits[known].argmax(1) == labels[known]).float().mean()


def class_shares(logits: Tensor) -> Tensor:
    """Share of the images (N, classes) whose largest logit is that of each class: float64 (classes,), of sum 1."""
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]).double() / len(logits)


def coverage(logits: Tensor, reference: Tensor) -> int:
    """The number of classes that a set of images has, by the logits (N, classes) of it and of real images.

    A class counts if at least half as large a share of the images as of the reference is of it. 8 classes of equal
    shares are covered if each has at least a 16th of the images; one that the reference lacks never counts.
    """
    shares, real = class_shares(logits), class_shares(reference)
    return int(((shares >= real / 2) & (real > 0)).sum())


def nearest_candidate(images: Tensor, candidates: Tensor) -> Tensor:
    """Logits (N, classes): minus the mean squared distance of an image to what it would be as each class.

    `images` are (N, 3, H, W) in [-1, 1], `candidates` uint8 (N, classes, 3, h, w), whose edges divide those of the
    images. An independent judge: it was not trained, so no generator can have learnt to deceive it.
    """
    height, width = candidates.shape[-2:]
    small = F.adaptive_avg_pool2d(images, (height, width))
    distances = [(small + 1 - one / 127.5).square().mean((1, 2, 3)) for one in candidates.unbind(1)]
    return -torch.stack(distances, 1)
