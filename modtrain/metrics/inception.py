"""The Inception network of the published FID, Inception Score and KID, with weights from a file of the user.

It is the network of TensorFlow's "Inception" of 2015-12-05, of which PyTorch files have ported weights (pytorch-fid and
torch-fidelity offer the same one). It differs from Inception v3 of Szegedy et al. 2016 and of torchvision: average
pooling ignores the padding, the last block pools by the maximum, and there are 1,008 classes. Names are the file's.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.errors import InputError
from modtrain.storage import filesystem

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 299
RESIZE = f"{SIZE} x {SIZE} pixels, bilinear without antialiasing, as in TensorFlow 1"
CLASSES = 1008
SQUARE, ROW, COLUMN = (3, 3), (1, 7), (7, 1)
"""Kernels: height and width."""


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation, ReLU; padded to keep the edges where the stride is 1."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, *, padded: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(images)), inplace=True)


Layer = tuple[str, int, tuple[int, int], int]
"""Name, channels, kernel and stride of a convolution."""
Branch = list[Layer | list[Layer]]
"""Convolutions one after the other; those of a list side by side."""


class Mixed(nn.Module):
    """Branches side by side, and pooling, whose channels are joined."""

    def __init__(self, inputs: int, branches: list[Branch], *, pooled: int = 0, pools_by_maximum: bool = False) -> None:
        super().__init__()
        self.names: list[list[list[str]]] = []
        self.channels, self.pooled, self.pools_by_maximum = pooled or inputs, pooled, pools_by_maximum
        for branch in branches:
            width, steps = inputs, [step if isinstance(step, list) else [step] for step in branch]
            for step in steps:
                for name, outputs, kernel, stride in step:
                    self.add_module(name, Convolution(width, outputs, kernel, stride))
                width = sum(layer[1] for layer in step)
            self.names.append([[layer[0] for layer in step] for step in steps])
            self.channels += width
        if pooled:
            self.branch_pool = Convolution(inputs, pooled)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([*(self._branch(images, steps) for steps in self.names), self._pool(images)], 1)

    def _branch(self, images: Tensor, steps: list[list[str]]) -> Tensor:
        for names in steps:
            images = torch.cat([self.get_submodule(name)(images) for name in names], 1)
        return images

    def _pool(self, images: Tensor) -> Tensor:
        if not self.pooled:
            return F.max_pool2d(images, 3, 2)
        if self.pools_by_maximum:
            return self.branch_pool(F.max_pool2d(images, 3, 1, 1))  # type: ignore[no-any-return]
        return self.branch_pool(F.avg_pool2d(images, 3, 1, 1, count_include_pad=False))  # type: ignore[no-any-return]


def _chain(name: str, *layers: tuple[int, tuple[int, int]], last_stride: int = 1) -> Branch:
    """Convolutions `name_1`, `name_2` and so on; a single one has the name alone."""
    names = [f"{name}_{number}" for number in range(1, len(layers) + 1)] if len(layers) > 1 else [name]
    strides = [1] * (len(layers) - 1) + [last_stride]
    return [(each, *layer, stride) for each, layer, stride in zip(names, layers, strides, strict=True)]


def _block_35(inputs: int, pooled: int) -> Mixed:
    double = _chain("branch3x3dbl", (64, (1, 1)), (96, SQUARE), (96, SQUARE))
    five = _chain("branch5x5", (48, (1, 1)), (64, (5, 5)))
    return Mixed(inputs, [_chain("branch1x1", (64, (1, 1))), five, double], pooled=pooled)


def _block_17(inputs: int, width: int) -> Mixed:
    seven = _chain("branch7x7", (width, (1, 1)), (width, ROW), (192, COLUMN))
    double = _chain("branch7x7dbl", (width, (1, 1)), *((width, k) for k in (COLUMN, ROW, COLUMN)), (192, ROW))
    return Mixed(inputs, [_chain("branch1x1", (192, (1, 1))), seven, double], pooled=192)


def _block_8(inputs: int, *, pools_by_maximum: bool) -> Mixed:
    def fork(name: str) -> list[Layer]:
        return [(f"{name}a", 384, (1, 3), 1), (f"{name}b", 384, (3, 1), 1)]

    three: Branch = [("branch3x3_1", 384, (1, 1), 1), fork("branch3x3_2")]
    double: Branch = [("branch3x3dbl_1", 448, (1, 1), 1), ("branch3x3dbl_2", 384, SQUARE, 1), fork("branch3x3dbl_3")]
    one = _chain("branch1x1", (320, (1, 1)))
    return Mixed(inputs, [one, three, double], pooled=192, pools_by_maximum=pools_by_maximum)


def _to_17(inputs: int) -> Mixed:
    double = _chain("branch3x3dbl", (64, (1, 1)), (96, SQUARE), (96, SQUARE), last_stride=2)
    return Mixed(inputs, [_chain("branch3x3", (384, SQUARE), last_stride=2), double])


def _to_8(inputs: int) -> Mixed:
    seven = _chain("branch7x7x3", (192, (1, 1)), (192, ROW), (192, COLUMN), (192, SQUARE), last_stride=2)
    return Mixed(inputs, [_chain("branch3x3", (192, (1, 1)), (320, SQUARE), last_stride=2), seven])


class Inception(nn.Module):
    """Images uint8 (N, 3, H, W) to features (N, 2048), the mean of the last map, and logits without bias (N, 1008)."""

    def __init__(self) -> None:
        super().__init__()
        stem = {
            "Conv2d_1a_3x3": Convolution(3, 32, SQUARE, 2),
            "Conv2d_2a_3x3": Convolution(32, 32, SQUARE, padded=False),
            "Conv2d_2b_3x3": Convolution(32, 64, SQUARE),
            "pool_1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": Convolution(64, 80),
            "Conv2d_4a_3x3": Convolution(80, 192, SQUARE, padded=False),
            "pool_2": nn.MaxPool2d(3, 2),
        }
        blocks = {
            "Mixed_5b": _block_35(192, 32),
            "Mixed_5c": _block_35(256, 64),
            "Mixed_5d": _block_35(288, 64),
            "Mixed_6a": _to_17(288),
            **{
                f"Mixed_6{letter}": _block_17(768, width)
                for letter, width in zip("bcde", (128, 160, 160, 192), strict=True)
            },
            "Mixed_7a": _to_8(768),
            "Mixed_7b": _block_8(1280, pools_by_maximum=False),
            "Mixed_7c": _block_8(2048, pools_by_maximum=True),
        }
        self.layers = [*stem, *blocks]
        for name, layer in (stem | blocks).items():
            self.add_module(name, layer)
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = (resized_like_tensorflow(images.float(), SIZE) - 128) / 128
        for name in self.layers:
            maps = self.get_submodule(name)(maps)
        features = maps.mean((2, 3))
        return features, features @ self.fc.weight.T


def resized_like_tensorflow(images: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize to a square: the first pixels of both images coincide, and nothing is averaged."""
    for axis in (3, 2):
        edge = images.shape[axis]
        places = torch.arange(size, dtype=torch.float32, device=images.device) * (edge / size)
        low = places.long()
        first = images.index_select(axis, low)
        second = images.index_select(axis, (low + 1).clamp_max(edge - 1))
        share = places - low
        images = first + (second - first) * (share if axis == 3 else share[:, None])
    return images


def load_inception(path: Path, sha256: str = SHA256) -> tuple[Inception, str]:
    """The network with the weights of a file, of which nothing is executed, and its SHA-256. Raises InputError."""
    try:
        content = filesystem.read_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. It must be the file {_FILE}.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise InputError(
            f"{path} is not the file {_FILE}: its SHA-256 begins with {digest[:8]} instead of {sha256[:8]}, so its "
            "numbers would compare with no published ones."
        )
    with torch.device("meta"):
        network = Inception()
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), assign=True)
    return network, digest


_FILE = "weights-inception-2015-12-05-6726825d.pth of torch-fidelity, which pytorch-fid has as pt_inception"
