"""Space: the parameters that a sweep varies, by name, and the point of each trial.

Grid, random and Sobol points are pure functions of space, seed and number of the trial, in any order, so that the index
of an array is enough.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from modtrain.errors import InputError, counted, did_you_mean
from modtrain.recipes.params import name_rates, parameters_meant
from modtrain.recipes.stages import STAGES
from modtrain.storage.strict_yaml import read_mapping, read_yaml

FIELDS = ("seed", "epochs", "exchange_every", "max_staleness", "precision")
"""Settings of a run that may vary, beside the parameters of the recipe."""
SAMPLERS = ("grid", "random", "sobol", "tpe")
DIGITS = 6
"""Significant decimals of a drawn number, relative to the range; machines whose `exp` differs in the last bit agree."""
WIDEST = 2**63 - 1
"""The largest bound, which is that of a run's seed."""
_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(:(?P<count>\d+))?")


@dataclass(frozen=True)
class Choices:
    """One of several values: numbers, text, true, false, null, or lists of them."""

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        """InputError where there is no value, one occurs twice, or one is not a plain value."""
        if not self.choices:
            raise InputError("There is no value to choose.")
        seen = set()
        for value in self.choices:
            if not _is_plain(value):
                raise InputError(f"{value!r} is not a number, text, true, false, null, or list of them.")
            key = value if _is_number(value) else json.dumps(value)
            if key in seen:
                raise InputError(f"{value!r} occurs twice.")
            seen.add(key)

    def __str__(self) -> str:
        """As `--vary` takes it."""
        return ", ".join(map(str, self.choices))

    @property
    def points(self) -> Sequence[Any] | None:
        """The points of a grid."""
        return self.choices

    @property
    def number_of_values(self) -> float:
        """How many different values there are."""
        return len(self.choices)

    def at(self, share: float) -> Any:
        """The value at a share, 0 <= share < 1, of equal parts."""
        return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number from `low` to `high`, both included; whole where both are. `count` is the number of points of a grid."""

    low: int | float
    high: int | float
    log: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        """InputError where the bounds or the count are not those of a range."""
        for name in ("low", "high"):
            if not _is_number(bound := getattr(self, name)):
                raise InputError(f"{name} = {bound!r} is not a number.")
        if not isinstance(self.log, bool):
            raise InputError(f"log = {self.log!r} is neither true nor false.")
        if not self.low < self.high:
            raise InputError(f"The low end {self.low} is not below the high end {self.high}.")
        if not -WIDEST <= self.low < self.high <= WIDEST:
            raise InputError(f"The range from {self.low} to {self.high} is too wide.")
        if self.log and not (self.low >= 1 if self.integer else self.low > 0):
            least = "1" if self.integer else "more than 0"
            raise InputError(f"A logarithmic range starts at {least}, not at {self.low}.")
        if self.count is not None and (type(self.count) is not int or self.count < 2):
            raise InputError(f"{self.count!r} points are not allowed; take 2 (both ends) or more.")
        if self.count and self.integer and self.count > self.high - self.low + 1:
            raise InputError(f"There are fewer than {self.count} whole numbers from {self.low} to {self.high}.")

    def __str__(self) -> str:
        """As `--vary` takes it."""
        count = f":{self.count}" if self.count else ""
        return f"{'log:' if self.log else ''}{self.low}..{self.high}{count}"

    @property
    def integer(self) -> bool:
        """Whether it holds only whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def number_of_values(self) -> float:
        """How many different values there are, whatever the `count` of a grid is; infinity for real numbers."""
        return self.high - self.low + 1 if self.integer else math.inf

    @cached_property
    def points(self) -> Sequence[int | float] | None:
        """The points of a grid with both ends: evenly spaced, logarithmically where `log`; whole ones are distinct.

        Without a count every whole number; None where there is none between, or too many.
        """
        low, high = int(self.low), int(self.high)
        if self.count is None:
            return range(low, high + 1) if self.integer and not self.log and high - low < WIDEST else None
        last = self.count - 1
        inner = [self.between(index / last) for index in range(1, last)]
        if not self.integer:
            return (float(self.low), *map(self.rounded, inner), float(self.high))
        distinct = accumulate([low, *map(round, inner), high], lambda before, value: max(value, before + 1))
        return tuple(min(value, high - (last - index)) for index, value in enumerate(distinct))

    def at(self, share: float) -> int | float:
        """The value at a share, 0 <= share < 1, of the range, or of its logarithm where `log`."""
        if not self.integer:
            return self.rounded(self.between(share))
        if not self.log:
            return self.rounded(self.low + int(share * (self.high - self.low + 1)))
        lowest, highest = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return self.rounded(round(math.exp(lowest + share * (highest - lowest))))

    def rounded(self, value: float) -> int | float:
        """A value moved into the range and rounded to `DIGITS`."""
        if self.integer:
            return min(max(int(value), self.low), self.high)
        span = float(self.high) - float(self.low)
        size = min(value, span) if self.log else span
        exponent = int(f"{size:e}".partition("e")[2])  # from the text: log10 differs between machines
        return min(max(round(value, DIGITS - exponent), float(self.low)), float(self.high))

    def between(self, share: float) -> float:
        """The number at a share of the range, or of its logarithm, before it is rounded."""
        if not self.log:
            return self.low + share * (self.high - self.low)
        return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))


Dimension = Choices | Range
Space = Mapping[str, Dimension]
"""Dimensions by name. The order counts: in a grid the last name varies fastest."""


def parse_vary(texts: Iterable[str]) -> Space:
    """The space of all `--vary name=...`, in order; InputError names a wrong one."""
    space: dict[str, Dimension] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = _name(name)
        if not equals or not all(name.split(".")) or not values.strip():
            raise InputError(f"--vary takes name=values, such as translator.lr=0.005,0.01 or seed=1..3; got {text!r}.")
        if name in space:
            raise InputError(f"--vary {name} is given twice; put all of its values into one.")
        space[name] = _read(_from_text, values.strip(), f"--vary {text}")
    return space


def read_space(path: Path) -> Space:
    """The space of a YAML file: dotted names, or names inside of their module's; InputError names file and entry."""
    return from_mapping(read_mapping(path, "space", "translator.lr: [0.005, 0.01]"), f"the space {path}")


def from_mapping(values: Mapping[Any, Any], where: str) -> Space:
    """The space of plain values, as in a YAML file; InputError names the source `where`, and the entry."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is a {type(values).__name__}; give names and values, such as {{'seed': '1..3'}}.")
    space: dict[str, Dimension] = {}
    for name, entry in _entries(values):
        if name in space:
            raise InputError(f"{where[:1].upper()}{where[1:]} has {name} twice; leave one of them out.")
        space[name] = _read(_from_entry, entry, f"{name} in {where}")
    return space


def as_json(space: Space) -> list[dict[str, Any]]:
    """A list, since the order counts, and JSON objects have none."""
    return [{"name": name, **asdict(dimension)} for name, dimension in space.items()]


def from_json(entries: Iterable[Mapping[str, Any]]) -> Space:
    """The inverse of `as_json`; InputError where the entries are not its output."""
    named = {str(entry.get("name")): {key: entry[key] for key in entry if key != "name"} for entry in entries}
    return {name: _read(_from_entry, entry, name) for name, entry in named.items()}


def resolve(names: Iterable[str], parameters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The recipe's parameters for each name: the one of that name, or all that have it as their last part.

    None for one of FIELDS, which precede parameters of that name. InputError for a name without parameters, a group of
    parameters, or a parameter that two names set.
    """
    resolved: dict[str, tuple[str, ...]] = {}
    for name in names:
        own = () if name in FIELDS else _meant(name, parameters)
        if name not in FIELDS and not own:
            raise _unknown(name, parameters)
        for other, others in resolved.items():
            for parameter in set(own) & set(others):
                both = f"{other!r} and by {name!r}"
                raise InputError(f"{parameter} is varied twice, by {both}; leave one of them out.")
        resolved[name] = own
    return resolved


def _meant(name: str, parameters: Sequence[str]) -> tuple[str, ...]:
    """The parameters of a name; those of a stage, `stages.fade.lr`, have its prefix."""
    parts = name.split(".", 2)
    prefix, last = (f"{parts[0]}.{parts[1]}.", parts[2]) if parts[0] == STAGES and len(parts) == 3 else ("", name)
    own = tuple(prefix + parameter for parameter in parameters_meant(last, parameters))
    return own or tuple(p for p in parameters if p == name)


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Points that together have every choice and both ends of every range; their number is a sum, not a product.

    A recipe that allows both ends allows what is between.
    """
    extremes = {name: d.choices if isinstance(d, Choices) else (d.low, d.high) for name, d in space.items()}
    first = {name: values[0] for name, values in extremes.items()}
    yield first
    for name, values in extremes.items():
        yield from (first | {name: value} for value in values[1:])


def format_values(values: Mapping[str, Any]) -> str:
    """A point in one line: `lr=0.01, seed=1`."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_value(value: Any) -> str:
    """A value as it is typed: null, true, 0.1, [1, 2], text."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def size(space: Space) -> int:
    """The number of points of the grid; InputError where a range has no count."""
    for name, dimension in space.items():
        if dimension.points is None:
            raise InputError(
                f"A grid needs a number of points of {name}: add `count: 5` in the space file, or :5 at "
                "the end of the range in --vary, or take --sampler random, sobol or tpe."
            )
    return math.prod(len(dimension.points or ()) for dimension in space.values())


def point(space: Space, sampler: str, *, seed: int, index: int) -> dict[str, Any]:
    """The values of trial `index` (from 0), by name: a pure function. A grid ignores the seed; TPE begins as Sobol.

    InputError where a grid has no such point.
    """
    if sampler == "grid":
        return _grid_point(space, index)
    shares = _shares(sampler, len(space), seed, index)
    return {name: dimension.at(share) for (name, dimension), share in zip(space.items(), shares, strict=True)}


def _grid_point(space: Space, index: int) -> dict[str, Any]:
    total, rest, values = size(space), index, {}
    if not 0 <= index < total:
        raise InputError(f"The grid has {counted(total, 'point')}, numbered from 0; there is no point {index}.")
    for name, dimension in reversed(list(space.items())):
        points = dimension.points or ()
        rest, own = divmod(rest, len(points))
        values[name] = points[own]
    return {name: values[name] for name in space}


def _shares(sampler: str, count: int, seed: int, index: int) -> list[float]:
    """`count` numbers in 0 <= share < 1; for Sobol point `index` of the sequence with Owen's scrambling."""
    if sampler == "random":
        import numpy as np

        return list(map(float, np.random.default_rng([seed, index]).random(count)))
    from scipy.stats.qmc import Sobol

    sequence = Sobol(count, scramble=True, rng=seed)
    if index:
        sequence.fast_forward(index)
    return list(map(float, sequence.random(1)[0]))


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


def _from_text(text: str) -> Dimension:
    """The dimension after `--vary name=`.

    Choices are the content of a YAML list: a comma in quotes is text, and `[1, 2],[3]` are two choices, each a list.
    A range stands alone, without commas; bounds that are both whole give whole numbers.
    """
    if text.startswith("log:") or (".." in text and not any(mark in text for mark in "'\"[")):
        return _range_from(text)
    if text.endswith(","):
        raise InputError("It ends with a comma.")
    try:
        return Choices(tuple(read_yaml(f"[{text}\n]")))
    except (yaml.YAMLError, ValueError, RecursionError):
        what = "not a list of values with commas between; quote text that has special characters"
        raise InputError(f"It is {what}.") from None


def _from_entry(entry: Any) -> Dimension:
    """The dimension of an entry of a space file, or of `as_json`."""
    if isinstance(entry, Mapping):
        return _from_mapping(entry)
    if isinstance(entry, Dimension):
        return entry
    if isinstance(entry, list | tuple | range):
        return Choices(tuple(entry))
    if isinstance(entry, str) and ".." in entry:
        return _range_from(entry.strip())
    raise InputError(f"{entry!r} is one value; take a list of choices in brackets, or a range such as 1..3.")


def _from_mapping(entry: Mapping[str, Any]) -> Dimension:
    known = [field.name for field in fields(Choices if "choices" in entry else Range)]
    for key in entry:
        if key not in known:
            raise InputError(f"{key!r} is not allowed there; take {', '.join(known)}.{did_you_mean(str(key), known)}")
    if "choices" in entry:
        if not isinstance(entry["choices"], list | tuple):
            raise InputError(f"choices = {entry['choices']!r} is not a list.")
        return Choices(tuple(entry["choices"]))
    if missing := [key for key in ("low", "high") if key not in entry]:
        raise InputError(f"A range has low and high; {' and '.join(missing)} is missing.")
    return Range(**entry)


def _range_from(text: str) -> Range:
    match = _RANGE.fullmatch(text)
    try:
        ends = [read_yaml(match[end]) for end in ("low", "high")] if match else []
    except (yaml.YAMLError, ValueError):
        ends = []
    if match is None or not ends or not all(map(_is_number, ends)):
        raise InputError(
            "A range is low..high without commas, such as 1..3, 0.1..0.9, log:1e-5..1e-2, or log:1e-5..1e-2:4 "
            "for 4 points of a grid; put text with dots in quotes."
        )
    count = int(match["count"]) if match["count"] else None
    return Range(low=ends[0], high=ends[1], log=bool(match["log"]), count=count)


def _unknown(name: str, parameters: Sequence[str]) -> InputError:
    if inside := [parameter for parameter in parameters if parameter.startswith(name + ".")]:
        return InputError(f"{name} is a group of parameters and cannot be varied itself; it has {', '.join(inside)}.")
    short = sorted({parameter.rpartition(".")[2] for parameter in parameters})
    return InputError(
        f"There is no parameter {name!r} to vary; the recipe has {', '.join(parameters)}, and a run has "
        f"{', '.join(FIELDS)}.{name_rates(name, parameters) or did_you_mean(name, [*parameters, *FIELDS, *short])}"
    )


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | str) or _is_number(value)
