"""Choices and Range: one dimension of a sweep, how it is written, and its value at a share of it.

On the command line, `--vary name=` is followed by

    0.005,0.01,0.02        choices: the content of a YAML list. A comma in quotes is text
                           ('a,b',c), and [1, 2],[3] are two choices, each a list
    1..3                   whole numbers from 1 to 3; a range stands alone, without commas
    0.1..0.9               numbers between, uniformly
    log:1e-5..1e-2         numbers between, log-uniformly
    log:1e-5..1e-2:4       a grid takes 4 points of it, both ends included

and a space file has lists, these ranges, or `{low: 1.0e-5, high: 1.0e-2, log: true, count: 4}`. Bounds that are both
whole give whole numbers: write 0.0 where fractions are meant.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from modtrain.errors import InputError, did_you_mean
from modtrain.storage.strict_yaml import read_yaml

DIGITS = 6
"""Significant decimals of a drawn number, relative to the range; machines whose `exp` differs in the last bit agree."""
WIDEST = 2**63 - 1
"""The largest bound, which is that of a run's seed."""

_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(:(?P<count>\d+))?")
_KEYS = ("low", "high", "log", "count")


@dataclass(frozen=True)
class Choices:
    """One of several values: numbers, text, true, false, null, or lists of them."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """InputError where there is no value, one occurs twice, or one is not a plain value."""
        if not self.values:
            raise InputError("There is no value to choose.")
        seen = set()
        for value in self.values:
            if not _is_plain(value):
                raise InputError(f"{value!r} is not a number, text, true, false, null, or list of them.")
            key = value if _is_number(value) else json.dumps(value)
            if key in seen:
                raise InputError(f"{value!r} occurs twice.")
            seen.add(key)

    @property
    def size(self) -> int | None:
        """The number of points of a grid."""
        return len(self.values)

    def nth(self, index: int) -> Any:
        """Point `index` of a grid."""
        return self.values[index]

    def at(self, share: float) -> Any:
        """The value at a share, 0 <= share < 1, of equal parts."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def extremes(self) -> Sequence[Any]:
        """All values: a recipe may refuse any."""
        return self.values


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
        self._check_count()

    def _check_count(self) -> None:
        if self.count is None:
            return
        if type(self.count) is not int or self.count < 2:
            raise InputError(f"{self.count!r} points are not allowed; take 2 (both ends) or more.")
        if self.integer and self.count > self.high - self.low + 1:
            raise InputError(f"There are fewer than {self.count} whole numbers from {self.low} to {self.high}.")

    @property
    def integer(self) -> bool:
        """Whether it holds only whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def size(self) -> int | None:
        """The number of points of a grid, None where it is not given; by default every whole number, evenly spaced."""
        return self.count or (int(self.high - self.low + 1) if self.integer and not self.log else None)

    def nth(self, index: int) -> int | float:
        """Point `index` of a grid: evenly spaced, logarithmically where `log`; whole ones are distinct."""
        if self.count is None:
            return self.low + index
        if self.integer:
            return _whole_points(self)[index]
        ends = {0: float(self.low), self.count - 1: float(self.high)}
        return ends[index] if index in ends else self.rounded(self._between(index / (self.count - 1)))

    def at(self, share: float) -> int | float:
        """The value at a share, 0 <= share < 1, of the range, or of its logarithm where `log`."""
        if not self.integer:
            return self.rounded(self._between(share))
        if not self.log:
            return self.rounded(self.low + int(share * (self.high - self.low + 1)))
        lowest, highest = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return self.rounded(round(math.exp(lowest + share * (highest - lowest))))

    def extremes(self) -> Sequence[Any]:
        """Both ends: a recipe that allows them allows what is between."""
        return self.low, self.high

    def rounded(self, value: float) -> int | float:
        """A value moved into the range and rounded to `DIGITS`."""
        if self.integer:
            return min(max(int(value), self.low), self.high)
        span = float(self.high) - float(self.low)
        size = min(value, span) if self.log else span
        exponent = int(f"{size:e}".partition("e")[2])  # from the text: log10 differs between machines
        return min(max(round(value, DIGITS - exponent), float(self.low)), float(self.high))

    def _between(self, share: float) -> float:
        if not self.log:
            return self.low + share * (self.high - self.low)
        return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))


Dimension = Choices | Range


def from_text(text: str) -> Dimension:
    """The dimension after `--vary name=`; InputError with what is wrong."""
    text = text.strip()
    if text.startswith("log:") or (".." in text and not any(mark in text for mark in "'\"[")):
        return _range_from(text)
    if text.endswith(","):
        raise InputError("It ends with a comma.")
    try:
        return Choices(tuple(read_yaml(f"[{text}\n]")))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(
            "It is not a list of values with commas between; quote text that has special characters."
        ) from None


def from_entry(entry: Any) -> Dimension:
    """The dimension of an entry of a space file, or of `as_entry`; InputError with what is wrong."""
    if isinstance(entry, list):
        return Choices(tuple(entry))
    if isinstance(entry, str) and ".." in entry:
        return _range_from(entry.strip())
    if isinstance(entry, Mapping):
        return _from_mapping(entry)
    raise InputError(f"{entry!r} is one value; take a list of choices in brackets, or a range such as 1..3.")


def as_entry(dimension: Dimension) -> dict[str, Any]:
    """A dimension as JSON, which a space file takes as well."""
    if isinstance(dimension, Choices):
        return {"choices": list(dimension.values)}
    return {key: getattr(dimension, key) for key in _KEYS}


def _from_mapping(entry: Mapping[str, Any]) -> Dimension:
    known = ("choices",) if "choices" in entry else _KEYS
    for key in entry:
        if key not in known:
            raise InputError(f"{key!r} is not allowed there; take {', '.join(known)}.{did_you_mean(str(key), known)}")
    if "choices" in entry:
        if not isinstance(entry["choices"], list):
            raise InputError(f"choices = {entry['choices']!r} is not a list.")
        return Choices(tuple(entry["choices"]))
    if missing := [key for key in ("low", "high") if key not in entry]:
        raise InputError(f"A range has low and high; {' and '.join(missing)} is missing.")
    return Range(**entry)


def _range_from(text: str) -> Range:
    match = _RANGE.fullmatch(text)
    low, high = (_number(match[end]) if match else None for end in ("low", "high"))
    if match is None or low is None or high is None:
        raise InputError(
            "A range is low..high without commas, such as 1..3, 0.1..0.9, log:1e-5..1e-2, or log:1e-5..1e-2:4 "
            "for 4 points of a grid; put text with dots in quotes."
        )
    return Range(low=low, high=high, log=bool(match["log"]), count=int(match["count"]) if match["count"] else None)


def _number(text: str) -> int | float | None:
    try:
        value = read_yaml(text)
    except (yaml.YAMLError, ValueError):
        return None
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | str) or _is_number(value)


@lru_cache(maxsize=64)
def _whole_points(of: Range) -> tuple[int, ...]:
    """`count` distinct whole numbers from low to high, as near to even spacing as that allows."""
    count, low, high = of.count or 2, int(of.low), int(of.high)
    points = [round(of._between(index / (count - 1))) for index in range(count)]
    for index in range(count):
        points[index] = max(points[index], low if index == 0 else points[index - 1] + 1)
    return tuple(min(value, high - (count - 1 - index)) for index, value in enumerate(points))
