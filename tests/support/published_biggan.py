"""BigGAN in the layouts of two projects, written out by hand from their published layers and key names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

Make = Callable[..., nn.Module]


class AuthorsLayer(nn.Module):
    """A layer whose weight is divided by the singular value that one power iteration finds from `u0`."""

    def __init__(self, function: Callable[..., Tensor], *shape: int, bias: bool = True) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(shape))
        self.register_parameter("bias", nn.Parameter(torch.randn(shape[0])) if bias else None)
        u = torch.randn(1, shape[0])
        for _ in range(60):  # as in training, where each step makes one
            u = F.normalize(u @ self.weight.flatten(1) @ self.weight.flatten(1).T).detach()
        self.register_buffer("u0", u)
        self.register_buffer("sv0", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.flatten(1)
        v = F.normalize(self.u0 @ rows)
        value = (v @ rows.T @ F.normalize(v @ rows.T).T).squeeze()
        return (
            self.function(x, self.weight / value)
            if self.bias is None
            else self.function(x, self.weight / value, self.bias)
        )


class AuthorsNorm(nn.Module):
    """Batch normalisation in eval mode; `gain` and `bias` are its own, or layers of a condition."""

    def __init__(self, channels: int, condition: int = 0) -> None:
        super().__init__()
        if condition:
            self.gain, self.bias = (AuthorsLayer(F.linear, channels, condition, bias=False) for _ in range(2))
        else:
            self.gain, self.bias = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))
        self.register_buffer("stored_mean", torch.randn(channels))
        self.register_buffer("stored_var", torch.rand(channels) + 0.5)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return F.batch_norm(x, self.stored_mean, self.stored_var, self.gain, self.bias, eps=1e-5)
        gain, bias = (1 + self.gain(y))[..., None, None], self.bias(y)[..., None, None]
        return F.batch_norm(x, self.stored_mean, self.stored_var, eps=1e-5) * gain + bias


class StudioNorm(nn.Module):
    """Conditional batch normalisation around PyTorch's."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.bn = filled(nn.BatchNorm2d(channels, eps=1e-4, affine=False))
        self.gain, self.bias = (spectral_norm(nn.Linear(condition, channels, bias=False)) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.bn(x) * (1 + self.gain(y))[..., None, None] + self.bias(y)[..., None, None]  # type: ignore[no-any-return]


def filled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Batch normalisation with random statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a project names and makes its layers."""

    conv: Make
    linear: Make
    embedding: Make
    norm: Make
    last_norm: Make
    names: dict[str, str]
    attention_apart: bool
    """Whether attention has a number of its own among the blocks."""


AUTHORS = Layout(
    conv=lambda i, o, k, bias=True: AuthorsLayer(
        lambda x, *wb: F.conv2d(x, *wb, padding=k // 2), o, i, k, k, bias=bias
    ),
    linear=lambda i, o: AuthorsLayer(F.linear, o, i),
    embedding=lambda n, d: AuthorsLayer(F.embedding, n, d, bias=False),
    norm=AuthorsNorm,
    last_norm=AuthorsNorm,
    names={"skip": "conv_sc", "first": "linear", "logit": "linear", "embedding": "embed"},
    attention_apart=False,
)
STUDIO = Layout(
    conv=lambda i, o, k, bias=True: spectral_norm(nn.Conv2d(i, o, k, padding=k // 2, bias=bias), eps=1e-6),
    linear=lambda i, o: spectral_norm(nn.Linear(i, o), eps=1e-6),
    embedding=lambda n, d: spectral_norm(nn.Embedding(n, d), eps=1e-6),
    norm=StudioNorm,
    last_norm=lambda channels: filled(nn.BatchNorm2d(channels, eps=1e-4)),
    names={"conv1": "conv2d1", "conv2": "conv2d2", "skip": "conv2d0", "first": "linear0", "logit": "linear1"}
    | {"theta": "conv1x1_theta", "phi": "conv1x1_phi", "g": "conv1x1_g", "o": "conv1x1_attn", "gamma": "sigma"},
    attention_apart=True,
)


class Named(nn.Module):
    """A module whose parts are found by our words, and have the names of a layout."""

    def __init__(self, layout: Layout, **parts: nn.Module) -> None:
        super().__init__()
        self.layout = layout
        for name, part in parts.items():
            self.add_module(layout.names.get(name, name), part)

    def __call__(self, *inputs: Tensor) -> Tensor:
        return super().__call__(*inputs)  # type: ignore[no-any-return]

    def part(self, name: str) -> nn.Module:
        return self.get_submodule(self.layout.names.get(name, name))


class Attention(Named):
    def __init__(self, layout: Layout, c: int) -> None:
        sizes = {"theta": (c, max(1, c // 8)), "phi": (c, max(1, c // 8)), "g": (c, c // 2), "o": (c // 2, c)}
        super().__init__(layout, **{name: layout.conv(*size, 1, bias=False) for name, size in sizes.items()})
        name = layout.names.get("gamma", "gamma")
        self.register_parameter(name, nn.Parameter(torch.randn(1 if layout.attention_apart else ())))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        theta, phi, g = (self.part(name)(x) for name in ("theta", "phi", "g"))
        phi, g = F.max_pool2d(phi, 2).flatten(2), F.max_pool2d(g, 2).flatten(2)
        beta = torch.bmm(theta.flatten(2).transpose(1, 2), phi).softmax(-1)
        mixed = torch.bmm(g, beta.transpose(1, 2)).unflatten(2, tuple(x.shape[2:]))  # type: ignore[no-untyped-call]
        return x + self.get_parameter(self.layout.names.get("gamma", "gamma")) * self.part("o")(mixed)  # type: ignore[no-any-return]


class Up(Named):
    def __init__(self, layout: Layout, i: int, o: int, condition: int) -> None:
        norms = {"bn1": layout.norm(i, condition), "bn2": layout.norm(o, condition)}
        super().__init__(
            layout, conv1=layout.conv(i, o, 3), conv2=layout.conv(o, o, 3), skip=layout.conv(i, o, 1), **norms
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.part("conv1")(F.interpolate(F.relu(self.part("bn1")(x, y)), scale_factor=2))
        h = self.part("conv2")(F.relu(self.part("bn2")(h, y)))
        return h + self.part("skip")(F.interpolate(x, scale_factor=2))  # type: ignore[no-any-return]


class Down(Named):
    def __init__(self, layout: Layout, i: int, o: int, *, first: bool, halves: bool) -> None:
        skip = {"skip": layout.conv(i, o, 1)} if halves or i != o else {}
        super().__init__(layout, conv1=layout.conv(i, o, 3), conv2=layout.conv(o, o, 3), **skip)
        self.first, self.pool, self.has_skip = first, nn.AvgPool2d(2) if halves else nn.Identity(), bool(skip)

    def forward(self, x: Tensor) -> Tensor:
        h = self.part("conv2")(F.relu(self.part("conv1")(x if self.first else F.relu(x))))
        return self.pool(h) + self.pool(self.part("skip")(x) if self.has_skip else x)  # type: ignore[no-any-return]


def numbered(layout: Layout, blocks: list[nn.Module], attention: int, channels: int) -> nn.ModuleList:
    """`blocks.N.0`, with attention as `.1` of its block, or as a block of its own."""
    lists = [nn.ModuleList([block]) for block in blocks]
    if layout.attention_apart:
        lists.insert(attention + 1, nn.ModuleList([Attention(layout, channels)]))
    else:
        lists[attention].append(Attention(layout, channels))
    return nn.ModuleList(lists)


class PublishedGenerator(Named):
    def __init__(
        self, layout: Layout, channels: list[int], chunk: int, *, classes: int, shared: int, attention: int
    ) -> None:
        blocks: list[nn.Module] = [Up(layout, *pair, shared + chunk) for pair in pairwise(channels)]
        norm, last = layout.last_norm(channels[-1]), layout.conv(channels[-1], 3, 3)
        ends = (
            {"bn4": norm, "conv2d5": last}
            if layout.attention_apart
            else {"output_layer": nn.Sequential(norm, nn.ReLU(), last)}
        )
        super().__init__(
            layout, first=layout.linear(chunk, channels[0] * 16), shared=nn.Embedding(classes, shared), **ends
        )
        self.blocks, self.chunk = numbered(layout, blocks, attention, channels[attention + 1]), chunk
        self.ends = [norm, nn.ReLU(), last]

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        first, *others = noise.split(self.chunk, 1)
        h = self.part("first")(first).reshape(len(noise), -1, 4, 4)
        for block in (block for each in self.blocks for block in each):
            y = None if isinstance(block, Attention) else torch.cat([self.part("shared")(labels), others.pop(0)], 1)
            h = block(h) if y is None else block(h, y)
        for end in self.ends:
            h = end(h)
        return torch.tanh(h)


class PublishedDiscriminator(Named):
    def __init__(self, layout: Layout, channels: list[int], halvings: int, *, classes: int, attention: int) -> None:
        blocks: list[nn.Module] = [
            Down(layout, *pair, first=not number, halves=number < halvings)
            for number, pair in enumerate(pairwise(channels))
        ]
        super().__init__(
            layout, logit=layout.linear(channels[-1], 1), embedding=layout.embedding(classes, channels[-1])
        )
        self.blocks = numbered(layout, blocks, attention, channels[attention + 1])

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        h = images
        for block in (block for each in self.blocks for block in each):
            h = block(h)
        h = F.relu(h).sum((2, 3))
        return self.part("logit")(h).squeeze(1) + (self.part("embedding")(labels) * h).sum(1)  # type: ignore[no-any-return]
