"""Placement: which modules share a worker. Within a worker they see each other live, across workers as frozen copies.

The slowest worker limits a run, so modules are grouped to make it as fast as the measured step costs allow
(`training/step_costs.py`), unless the recipe or the user places them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from modtrain.errors import InputError, counted, did_you_mean, one_of

Placement = list[list[str]]


def place(modules: Sequence[str], nodes: int, costs: Mapping[str, float]) -> Placement:
    """Group the modules on `nodes` workers so that the slowest worker is fastest; ties keep the recipe's order.

    `costs` are seconds per step by module, used only where 1 < nodes < number of modules.
    """
    if nodes < 1:
        raise InputError(f"--nodes {nodes} is not allowed; use 1 (joint training) to {len(modules)} (one module each).")
    if nodes > len(modules):
        raise InputError(
            f"--nodes {nodes} is more than the recipe's {counted(len(modules), 'module')} ({', '.join(modules)}), and "
            f"one module cannot be spread over several nodes yet; use at most --nodes {len(modules)}."
        )
    if nodes == 1:
        return [list(modules)]
    if nodes == len(modules):
        return [[module] for module in modules]
    return min(_partitions(list(modules), nodes), key=lambda groups: _loads(groups, costs))


def parse(text: str, modules: Sequence[str]) -> Placement:
    """Placement from text such as `translator | encoder_decoder, discriminator`: `|` separates workers, commas modules.

    InputError unless every module is named exactly once.
    """
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in text.split("|")]
    named = [name for group in groups for name in group]
    for name in named:
        if name not in modules:
            raise InputError(
                f"--place names {name!r}, which is no module; name {one_of(modules)}.{did_you_mean(name, modules)}"
            )
    wrong = [name for name in modules if named.count(name) != 1]
    if wrong or not all(groups):
        example = " | ".join(modules)
        raise InputError(
            f"--place must name every module exactly once, as in {example!r}; "
            + (f"check {', '.join(wrong)}." if wrong else "a worker has no modules.")
        )
    return ordered(groups, modules)


def ordered(groups: Iterable[Iterable[str]], modules: Sequence[str]) -> Placement:
    """The groups, each in the order of the recipe's modules."""
    return [sorted(group, key=list(modules).index) for group in groups]


def format_placement(placement: Placement) -> str:
    """A placement as `--place` takes it."""
    return " | ".join(",".join(modules) for modules in placement)


def _loads(groups: Placement, costs: Mapping[str, float]) -> list[float]:
    """Seconds per step of each worker, slowest first, so that the better of two groupings compares smaller."""
    return sorted((sum(costs[module] for module in group) for group in groups), reverse=True)


def _partitions(modules: list[str], count: int) -> Iterator[Placement]:
    """Every partition of the modules into `count` non-empty groups."""
    if len(modules) < count or count == 0:
        return
    if len(modules) == count:
        yield [[module] for module in modules]
        return
    first, rest = modules[0], modules[1:]
    for groups in _partitions(rest, count - 1):
        yield [[first], *groups]
    for groups in _partitions(rest, count):
        for index, group in enumerate(groups):
            yield [*groups[:index], [first, *group], *groups[index + 1 :]]
