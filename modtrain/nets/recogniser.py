"""A small image classifier, such as the network that recognises a person in pix2pix."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

LAYERS = 4


class Recogniser(nn.Sequential):
    """Four 3x3 convolutions with stride 2, batch normalisation and ReLU; the mean over the map; a linear layer.

    Images (N, 3, H, W) to logits (N, classes). The width doubles with each layer: 32-64-128-256.
    """

    def __init__(self, width: int, classes: int) -> None:
        widths = [3] + [width * 2**layer for layer in range(LAYERS)]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))

    def verdict(self, images: Tensor) -> Tensor:
        """The logits in eval mode, so that what is judged does not move the statistics, which are of true images."""
        was_training = self.training
        try:
            return self.eval()(images)  # type: ignore[no-any-return]
        finally:
            self.train(was_training)
