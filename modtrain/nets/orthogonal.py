"""Orthogonal weights: the initial ones (Saxe et al. 2014), and what keeps them so (Brock et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

OrthogonalForm = Literal["paper", "reference"]


def orthogonal_initialised(net: nn.Module) -> nn.Module:
    """`net` with orthogonal weights in its convolutions, linear layers and embeddings, and biases 0; in place."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            assert not is_parametrized(layer), "drawn into a computed weight, the initial weights are lost"
            nn.init.orthogonal_(layer.weight)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return net


def orthogonal_penalty(weights: Iterable[Tensor], form: OrthogonalForm) -> Tensor:
    """The sum over weight matrices W of the squared products of different ones of their columns, or rows; a scalar.

    `paper`: ||W'W * (1 - I)||^2 as printed (equation 3), by columns. `reference`: half of ||WW' * (1 - I)||^2, by rows;
    its gradient 2(WW' * (1 - I))W is what the authors' code adds to that of the loss. A weight of more axes is a matrix
    of its first axis and all others; one of fewer, such as a bias, does not count.
    """
    penalties = []
    for weight in weights:
        if weight.dim() > 1:
            rows = weight.flatten(1) if form == "reference" else weight.flatten(1).T
            products = rows @ rows.T
            penalties.append(products.square().sum() - products.diagonal().square().sum())
    total = torch.stack(penalties).sum()
    return total / 2 if form == "reference" else total
