"""Space: the parameters that a sweep varies, and the point of each trial.

Grid, random and Sobol points are pure functions of space, seed and number of the trial, in any order, so that the index
of an array is enough.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.errors import InputError, did_you_mean
from modtrain.storage.strict_yaml import read_mapping
from modtrain.sweeps.distributions import Dimension, as_entry, from_entry, from_text

FIELDS = ("seed", "epochs", "exchange_every", "max_staleness")
"""Settings of a run that may vary, beside the parameters of the recipe."""
SAMPLERS = ("grid", "random", "sobol")


@dataclass(frozen=True)
class Space:
    """Dimensions by name. The order counts: in a grid the last name varies fastest."""

    dimensions: Mapping[str, Dimension]


def parse_vary(texts: Iterable[str]) -> Space:
    """The space of all `--vary name=...`, in order; InputError names a wrong one."""
    dimensions: dict[str, Dimension] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = _name(name)
        if not equals or not all(name.split(".")) or not values.strip():
            raise InputError(f"--vary takes name=values, such as translator.lr=0.005,0.01 or seed=1..3; got {text!r}.")
        if name in dimensions:
            raise InputError(f"--vary {name} is given twice; put all of its values into one.")
        dimensions[name] = _read(from_text, values, f"--vary {text}")
    return Space(dimensions)


def read_space(path: Path) -> Space:
    """The space of a YAML file: dotted names, or names inside of their module's; InputError names file and entry."""
    example = "translator.lr: [0.005, 0.01]"
    values = read_mapping(path, "space", example)
    if not values:
        raise InputError(f"The space {path} must hold names and values, such as `{example}`.")
    return from_mapping(values, f"the space {path}")


def from_mapping(values: Mapping[Any, Any], where: str) -> Space:
    """The space of plain values, as in a YAML file; InputError names the source `where`, and the entry."""
    dimensions: dict[str, Dimension] = {}
    for name, entry in _entries(values):
        if name in dimensions:
            raise InputError(f"{where[:1].upper()}{where[1:]} has {name} twice; leave one of them out.")
        dimensions[name] = _read(from_entry, entry, f"{name} in {where}")
    return Space(dimensions)


def merged(first: Space, second: Space) -> Space:
    """Both spaces; of a name in both the second entry counts."""
    return Space({**first.dimensions, **second.dimensions})


def as_json(space: Space) -> list[dict[str, Any]]:
    """A list, since the order counts, and JSON objects have none."""
    return [{"name": name, **as_entry(dimension)} for name, dimension in space.dimensions.items()]


def from_json(entries: Iterable[Mapping[str, Any]]) -> Space:
    """The inverse of `as_json`; InputError where the entries are not its output."""
    dimensions = {}
    for entry in entries:
        name = str(entry.get("name"))
        dimensions[name] = _read(from_entry, {key: value for key, value in entry.items() if key != "name"}, name)
    return Space(dimensions)


def resolve(names: Iterable[str], parameters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The recipe's parameters for each name: the one of that name, or all that have it as their last part.

    None for one of FIELDS, which precede parameters of that name. InputError for a name without parameters, a group of
    parameters, or a parameter that two names set.
    """
    resolved: dict[str, tuple[str, ...]] = {}
    varied_by: dict[str, str] = {}
    for name in names:
        resolved[name] = () if name in FIELDS else tuple(p for p in parameters if name in (p, p.rpartition(".")[2]))
        if name not in FIELDS and not resolved[name]:
            raise InputError(_unknown(name, parameters))
        for parameter in resolved[name]:
            if parameter in varied_by:
                both = f"{varied_by[parameter]!r} and by {name!r}"
                raise InputError(f"{parameter} is varied twice, by {both}; leave one of them out.")
            varied_by[parameter] = name
    return resolved


def split(values: Mapping[str, Any], parameters: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A point as arguments of `read_config`: options by name, and settings `a.b=value` as of `--set`."""
    options = {name: value for name, value in values.items() if name in FIELDS}
    settings = []
    for name, names in resolve(values, parameters).items():
        # JSON is YAML, and its quotes keep the text "1" a text
        settings += [f"{parameter}={json.dumps(values[name], ensure_ascii=False)}" for parameter in names]
    return options, settings


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Points that together have every choice and both ends of every range; their number is a sum, not a product."""
    first = {name: dimension.extremes()[0] for name, dimension in space.dimensions.items()}
    yield first
    for name, dimension in space.dimensions.items():
        yield from (first | {name: value} for value in dimension.extremes()[1:])


def format_values(values: Mapping[str, Any]) -> str:
    """A point in one line: `lr=0.01, seed=1`."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_value(value: Any) -> str:
    """A value as it is typed: null, true, 0.1, [1, 2], text."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def size(space: Space) -> int:
    """The number of points of the grid; InputError where a range has no count."""
    for name, dimension in space.dimensions.items():
        if dimension.size is None:
            raise InputError(
                f"A grid needs a number of points of {name}: add `count: 5` in the space file, or :5 at "
                "the end of the range in --vary, or take --sampler random, sobol or tpe."
            )
    return math.prod(dimension.size or 1 for dimension in space.dimensions.values())


def point(space: Space, sampler: str, *, seed: int, index: int) -> dict[str, Any]:
    """The values of trial `index` (from 0), by name: a pure function. A grid ignores the seed.

    InputError for an unknown sampler, and where a grid has no such point.
    """
    if sampler == "grid":
        return _grid_point(space, index)
    shares: dict[str, Callable[[int, int, int], list[float]]] = {"random": _random_shares, "sobol": _sobol_shares}
    if sampler not in shares:
        near = did_you_mean(sampler, SAMPLERS)
        raise InputError(f"There is no sampler {sampler!r} of points; take {', '.join(SAMPLERS)}.{near}")
    if seed < 0 or index < 0:
        raise InputError(f"A seed and a trial's number are 0 or more; got seed {seed} and number {index}.")
    drawn = shares[sampler](len(space.dimensions), seed, index)
    return {name: d.at(share) for (name, d), share in zip(space.dimensions.items(), drawn, strict=True)}


def _grid_point(space: Space, index: int) -> dict[str, Any]:
    total, rest, values = size(space), index, {}
    if not 0 <= index < total:
        raise InputError(f"The grid has {total} points, numbered from 0; there is no point {index}.")
    for name, dimension in reversed(list(space.dimensions.items())):
        rest, own = divmod(rest, dimension.size or 1)
        values[name] = dimension.nth(own)
    return {name: values[name] for name in space.dimensions}


def _random_shares(count: int, seed: int, index: int) -> list[float]:
    import numpy as np

    return [float(share) for share in np.random.default_rng([seed, index]).random(count)]


def _sobol_shares(count: int, seed: int, index: int) -> list[float]:
    """Point `index` of Sobol's sequence with Owen's scrambling; drawn one at a time, it is the same sequence."""
    from scipy.stats.qmc import Sobol

    if not count:
        return []
    sequence = Sobol(count, scramble=True, rng=seed)
    if index:
        sequence.fast_forward(index)
    return [float(share) for share in sequence.random(1)[0]]


def _entries(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry by its dotted name. A mapping with the keys of a range or of choices is one, any other is a group."""
    for key, value in values.items():
        name = prefix + _name(str(key))
        if isinstance(value, dict) and value and not value.keys() & {"low", "high", "choices"}:
            yield from _entries(value, name + ".")
        else:
            yield name, value


def _name(text: str) -> str:
    return text.strip().replace("-", "_")


def _read(read: Callable[[Any], Dimension], values: Any, where: str) -> Dimension:
    try:
        return read(values)
    except InputError as error:
        raise InputError(f"{where} is not allowed: {str(error)[:1].lower()}{str(error)[1:]}") from None


def _unknown(name: str, parameters: Sequence[str]) -> str:
    inside = [parameter for parameter in parameters if parameter.startswith(name + ".")]
    if inside:
        return f"{name} is a group of parameters and cannot be varied itself; it has {', '.join(inside)}."
    short = sorted({parameter.rpartition(".")[2] for parameter in parameters})
    return (
        f"There is no parameter {name!r} to vary; the recipe has {', '.join(parameters)}, and a run has "
        f"{', '.join(FIELDS)}.{did_you_mean(name, [*parameters, *FIELDS, *short])}"
    )
