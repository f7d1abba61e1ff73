"""Metrics of enlarged images against the true ones, each beside that of bicubic interpolation, and a grid of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modtrain.metrics.feature_maps import NETWORKS, perceptual_distances
from modtrain.metrics.full_reference import Channel, psnr, ssim
from modtrain.metrics.sample_grid import sample_grid, to_uint8
from modtrain.metrics.sliced_wasserstein import SMALLEST_LEVEL, sliced_wasserstein_scores
from modtrain.nets.srresnet import bicubic

PART, MOST_PARTS = 64, 1024
"""Edge of the parts of images whose distance in features and whose SWD are measured, and how many there are at most."""
AT_ONCE = 64
SHOWN, COLUMNS = 96, 8
"""Edge of the middle of each image that the grid shows, and how many images it shows."""
CHANNELS: dict[str, Channel] = {"": "rgb", "_y": "y"}
"""By what follows the name of a metric."""
BICUBIC = "bicubic"
"""What precedes the name of a metric of bicubic interpolation."""
LOWER_IS_BETTER = tuple(
    name
    for metric in ("swd", *(f"perceptual_{network}" for network in NETWORKS))
    for name in (metric, f"{BICUBIC}_{metric}")
)


class SuperResolutionScores:
    """Images are added one by one, so that those of any size and number can be measured.

    PSNR and SSIM are of images rounded to 8 bits, without a border of `scale` pixels, of all colours and (`_y`) of the
    luma; means over the images. `perceptual_NAME` is the mean of `perceptual_distances` by the features of `network`,
    and `swd` the mean over the levels of `sliced_wasserstein_distances`, both of parts of the images.
    """

    def __init__(self, truth: Sequence[Tensor], *, scale: int, network: nn.Module, name: str) -> None:
        """`truth`: all images (1, 3, H, W) that will be added, in any format; `name`: that of the network."""
        self.scale, self.network, self.name = scale, network, name
        least = min(min(image.shape[-2:]) for image in truth)
        self._part = min(PART, 1 << least.bit_length() - 1)
        self._shown = min(SHOWN, least) // scale * scale
        self._parts_each, self._every = -(-MOST_PARTS // len(truth)), -(-len(truth) // COLUMNS)
        self._scores: dict[str, list[float]] = {}
        self._parts: dict[str, list[Tensor]] = {}
        self._rows: dict[str, list[Tensor]] = {}
        self._count = 0

    def add(self, made: Tensor, small: Tensor, truth: Tensor) -> None:
        """An enlarged image (1, 3, H, W), the small one that it was made of, and the true one, floats in [-1, 1]."""
        images = {"": made, BICUBIC: bicubic(small, self.scale), "truth": truth}
        for prefix in ("", BICUBIC):
            for suffix, channel in CHANNELS.items():
                for metric in (psnr, ssim):
                    value = metric(images[prefix], truth, channel=channel, border=self.scale)
                    self._scores.setdefault(_named(prefix, f"{metric.__name__}{suffix}"), []).append(value)
        for kind, image in images.items():
            self._parts.setdefault(kind, []).append(to_uint8(self._parts_of(image)))
        if self._count % self._every == 0:
            nearest = small.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
            rows = {"low resolution": nearest, BICUBIC: images[BICUBIC], "enlarged": made, "original": truth}
            for name, image in rows.items():
                self._rows.setdefault(name, []).append(self._middle(image).cpu())
        self._count += 1

    def metrics(self) -> dict[str, float]:
        """By name, each followed by that of bicubic interpolation."""
        means = {name: sum(values) / len(values) for name, values in self._scores.items()}
        parts = {kind: torch.cat(each) for kind, each in self._parts.items()}
        for prefix in ("", BICUBIC):
            means[_named(prefix, f"perceptual_{self.name}")] = self._perceptual(parts[prefix], parts["truth"])
            if self._part >= SMALLEST_LEVEL:
                means[_named(prefix, "swd")] = sliced_wasserstein_scores(parts[prefix], parts["truth"])["swd"]
        own = [name for name in means if not name.startswith(BICUBIC)]
        return {name: means[name] for each in own for name in (each, _named(BICUBIC, each))}

    def grid(self) -> Tensor:
        """The middle of some of the images: as given, by bicubic interpolation, enlarged, and as they are."""
        return sample_grid({name: torch.cat(images) for name, images in self._rows.items()}, COLUMNS)

    def _parts_of(self, image: Tensor) -> Tensor:
        """Some of the parts that lie side by side in an image, (N, 3, part, part)."""
        rows = image[0].unfold(1, self._part, self._part).unfold(2, self._part, self._part)
        parts = rows.permute(1, 2, 0, 3, 4).flatten(0, 1)
        return parts[:: -(-len(parts) // self._parts_each)]

    def _middle(self, image: Tensor) -> Tensor:
        top, left = ((edge - self._shown) // 2 // self.scale * self.scale for edge in image.shape[-2:])
        return image[..., top : top + self._shown, left : left + self._shown]

    def _perceptual(self, parts: Tensor, truth: Tensor) -> float:
        """The mean distance by the features."""
        both = (torch.split(each, AT_ONCE) for each in (parts, truth))
        pairs = ((one.float() / 127.5 - 1, other.float() / 127.5 - 1) for one, other in zip(*both, strict=True))
        with torch.no_grad():
            return float(torch.cat([perceptual_distances(self.network, *pair) for pair in pairs]).mean())


def _named(prefix: str, metric: str) -> str:
    return f"{prefix}_{metric}" if prefix else metric
