"""Checks of the groups of modules that a recipe names: those that are trained together, and its default placement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modtrain.errors import InputError, did_you_mean


def check_together(together: Any, modules: Iterable[str]) -> None:
    """InputError unless these are groups of at least two modules, each of them in one group."""
    _check_groups(
        "together", together, modules, 2, "groups of at least two modules, as in together=(('encoder', 'decoder'),)"
    )


def check_placement(placement: Any, modules: Iterable[str]) -> None:
    """InputError unless these are groups of modules, and each of all modules is in one; nothing is allowed as well."""
    known = list(modules)
    example = ", ".join(f"({name!r},)" for name in known)
    _check_groups("placement", placement, known, 1, f"the modules of each worker, as in placement=({example},)")
    named = [name for group in placement for name in group]
    if placement and (missing := [name for name in known if name not in named]):
        raise InputError(f"placement does not name {missing[0]!r}; it names every module, or is empty.")


def _check_groups(field: str, groups: Any, modules: Iterable[str], least: int, allowed: str) -> None:
    if not isinstance(groups, tuple) or not all(isinstance(group, tuple) and len(group) >= least for group in groups):
        raise InputError(f"{field} = {groups!r} is not allowed; give a tuple of tuples, {allowed}.")
    known, names = list(modules), [name for group in groups for name in group]
    for name in names:
        if name not in known:
            near = did_you_mean(str(name), known)
            raise InputError(f"{field} names {name!r}, but the recipe has {', '.join(known)}.{near}")
        if names.count(name) > 1:
            raise InputError(f"{field} names {name!r} twice; a module is in one group.")
