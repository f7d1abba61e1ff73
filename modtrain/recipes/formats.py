"""Formats: the files in which another project keeps the networks of a recipe, to export and import trained modules.

A file is a state dict that `torch.save` has written, bare or under a name. It is read with `weights_only`, so no
code runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modtrain.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net

LATEST = "latest"
"""What stands for the epoch in the name of a file of the newest weights."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The file of one module."""

    name: str
    """Its name, in which `{epoch}` stands for `latest` or the number of an epoch."""
    weights: Callable[[Net], Mapping[str, str]]
    """`weights(net)` returns the name in the file of each parameter and buffer of the network, by its own name."""
    params: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] = lambda tensors: {}
    """`params(tensors)` returns the parameters that follow from the tensors of a file, such as its width, nested."""
    key: str = ""
    """The name under which the state dict stands in a file that is written; empty: it is the whole file."""
    upgrade: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    """`upgrade(tensors)` returns the tensors of a file as the network has them, by the names of the file.

    Such as what an older version wrote as a newer one would have written it.
    """
    finish: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    """`finish(tensors)` returns tensors as the network has them, by the names of the file, as the file has them."""

    check: Callable[[Net], None] = lambda net: None
    """`check(net)` raises InputError where a network is not that of the file, though the tensors might fit."""

    def at(self, epoch: str) -> str:
        """The name of the file at an epoch."""
        return self.name.replace("{epoch}", epoch)

    def named(self, net: Net) -> dict[str, Tensor]:
        """The state of a network, by the names of the file."""
        names = self.weights(net)
        return {names[name]: value for name, value in net.state_dict().items()}

    def exported(self, net: Net) -> Mapping[str, Tensor]:
        """The tensors of a file with the state of a network."""
        self.check(net)
        return self.finish(self.named(net))

    def imported(self, net: Net, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file, which fit the network, by the names of the network."""
        self.check(net)
        return {name: tensors[theirs] for name, theirs in self.weights(net).items()}


@dataclass(frozen=True, kw_only=True)
class Format:
    """A folder of files, one for each module."""

    files: Mapping[str, WeightsFile]
    """By module."""


def check_formats(formats: Any, modules: Iterable[str]) -> None:
    """InputError where the formats of a recipe are none, or not those of its modules."""
    if not isinstance(formats, Mapping) or not all(isinstance(each, Format) for each in formats.values()):
        raise InputError(f"formats = {formats!r} is not allowed; give formats={{'name': Format(files=...)}}.")
    known = list(modules)
    for name, each in formats.items():
        if foreign := [module for module in each.files if module not in known]:
            raise InputError(
                f"The format {name!r} has a file of {foreign[0]!r}, but the recipe has {', '.join(known)}."
            )


def format_named(formats: Mapping[str, Format], name: str | None, recipe: str) -> Format:
    """The format of a recipe, without a name its only one; InputError where there is none of this name."""
    if not formats:
        raise InputError(f"The recipe {recipe} has no formats; give it one to exchange files with another project.")
    if name is None and len(formats) == 1:
        return next(iter(formats.values()))
    if name is None:
        raise InputError(f"The recipe {recipe} has several formats; give one with --format: {', '.join(formats)}.")
    if name not in formats:
        near = did_you_mean(name, formats)
        raise InputError(f"The recipe {recipe} has no format {name!r}; it has {', '.join(formats)}.{near}")
    return formats[name]
