"""The judge of the built-in fruits: a small classifier of the eight classes of `data/fruits/orchard.py`.

Its weights come with modtrain. `modtrain bench judge` trains them again, which takes a minute.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.data.fruits.orchard import CLASSES
from modtrain.storage import filesystem

SIZE = 32
RESIZE = f"{SIZE} x {SIZE} pixels, bicubic with antialiasing"
WEIGHTS = Path(__file__).with_name("weights") / "orchard.safetensors"


class OrchardJudge(nn.Module):
    """Five 3x3 convolutions with batch normalisation and ReLU, of which two halve the edges; the mean over the map.

    Images uint8 (N, 3, H, W) to features (N, 64), and by a linear layer to the logits of the eight classes: 87,000
    parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 24, 1), (24, 32, 2), (32, 48, 1), (48, 64, 2), (64, 64, 1))
        layers: list[nn.Module] = []
        for inputs, outputs, stride in widths:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classes = nn.Linear(widths[-1][1], len(CLASSES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.convolutions(_resized(images.float()) / 127.5 - 1)
        return features, self.classes(features)


def _resized(images: Tensor) -> Tensor:
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)


def trained_judge() -> tuple[OrchardJudge, str]:
    """The judge with the weights that come with modtrain, and their SHA-256."""
    content = filesystem.read_file(WEIGHTS)
    with torch.device("meta"):  # without random weights, whose draws would show outside
        judge = OrchardJudge()
    judge.load_state_dict(safetensors.torch.load(content), assign=True)
    return judge, hashlib.sha256(content).hexdigest()


def accuracy_on(judge: OrchardJudge, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose class the judge finds."""
    with torch.inference_mode():
        found = torch.cat([judge(part)[1].argmax(1) for part in torch.split(images, 250)])
    return float((found == labels).double().mean())
