"""The U-Net generator of pix2pix (Isola et al. 2017, section 3.2.1 and appendix 6.1; Ronneberger et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DROPOUT = 0.5
MOST = 8
"""The widest layers have so many times the channels of the first one."""


class UnetGenerator(nn.Module):
    """`C64-C128-C256-C512 x 5` and its mirror with skips, tanh: images (N, 3, H, W) in [-1, 1] to the same shape.

    `levels` times the edge is halved, so H and W are multiples of 2^levels; the paper has 8 levels at 256 pixels and a
    `width` of 64. 4x4 convolutions with stride 2, leaky ReLU on the way down and ReLU on the way up, batch
    normalisation but for the outermost and the innermost convolution, dropout in the levels of the full width except
    the innermost one. Modules are nested and named as in the authors' code, so state dicts have the published keys.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        widths = [width * min(2**level, MOST) for level in range(levels)]
        level: UnetLevel | None = None
        for depth in range(levels - 1, 0, -1):
            level = UnetLevel(
                widths[depth - 1], widths[depth], level, dropout=bool(level) and widths[depth - 1] == MOST * width
            )
        down = nn.Conv2d(3, widths[0], 4, 2, 1, bias=False)
        inside = (down,) if level is None else (down, level)
        up = nn.ConvTranspose2d(widths[0] * len(inside), 3, 4, 2, 1)
        self.model = nn.ModuleDict({"model": nn.Sequential(*inside, nn.ReLU(), up, nn.Tanh())})

    def forward(self, images: Tensor) -> Tensor:
        return self.model["model"](images)  # type: ignore[no-any-return]


class UnetLevel(nn.Module):
    """One level with all that is inside of it: (N, C, H, W) to (N, 2C, H, W), the input and what was made of it."""

    def __init__(self, outside: int, width: int, inside: UnetLevel | None, *, dropout: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outside, width, 4, 2, 1, bias=False)]
        if inside is not None:
            layers += [nn.BatchNorm2d(width), inside]
            width *= 2
        up = nn.ConvTranspose2d(width, outside, 4, 2, 1, bias=False)
        layers += [nn.ReLU(), up, nn.BatchNorm2d(outside)]
        if dropout:
            layers.append(nn.Dropout(DROPOUT))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)
