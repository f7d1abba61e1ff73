"""Thinning: which versions of a run's lanes are shown where there are more than a page can hold.

Kept are the newest, the last ones, those around the death of a worker, the ends of epochs, and what the others were
trained against; of the rest, and of each of these where they are too many, every second, fourth, eighth and so on: then
the ones that are shown stay the same as a lane grows.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from modtrain.storage.checkpoint import Checkpoint

MOST = 2_000
"""Versions of each module."""
NEWEST = 64
"""At least so many of the newest are kept, at most twice as many."""
MOST_ENDS = 100
"""Deaths of workers, and last versions, of each module, the newest."""


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Published:
    """The versions of one module, ascending, and when its workers died (Unix times)."""

    versions: Sequence[Checkpoint]
    deaths: Sequence[float] = ()


def thinned(modules: Mapping[str, Published], most: int = MOST) -> dict[str, list[Checkpoint]]:
    """The versions of each module that are shown: all where they are at most `most`."""
    if all(len(module.versions) <= most for module in modules.values()):
        return {name: list(module.versions) for name, module in modules.items()}
    own = {name: _own(module, most // 2) for name, module in modules.items()}
    chosen = dict(own)
    for name, module in modules.items():
        place = {checkpoint.version: index for index, checkpoint in enumerate(module.versions)}
        used = {place[number] for number in _used(name, modules, own) if number in place}
        for wanted in (used, set(place.values())):
            chosen[name] = chosen[name] | _every(sorted(wanted - chosen[name]), most - len(chosen[name]))
    return {name: [module.versions[index] for index in sorted(chosen[name])] for name, module in modules.items()}


def evenly(items: Sequence[T], most: int) -> list[T]:
    """The first, the newest, and of the others every second, fourth and so on where there are too many."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in sorted(_every(range(len(items)), most - 1) | {len(items) - 1})]


def _own(module: Published, most: int) -> set[int]:
    """The places of the versions to keep for their own sake."""
    versions, last = module.versions, len(module.versions)
    keep = set(range(max(0, (last // NEWEST - 1) * NEWEST), last)) | {
        i for i, each in enumerate(versions) if each.final
    }
    times = [checkpoint.published_at for checkpoint in versions]
    for death in module.deaths[-MOST_ENDS:]:
        after = bisect.bisect_right(times, death)
        keep |= {index for index in (after - 1, after) if 0 <= index < last}
    epochs = [index for index, each in enumerate(versions) if each.full and index not in keep]
    keep |= _every(epochs, most - len(keep))
    return keep | _every([index for index in range(last) if index not in keep], most - len(keep))


def _used(name: str, modules: Mapping[str, Published], chosen: Mapping[str, Iterable[int]]) -> set[int]:
    """The newest version of a module that each shown version of the others was trained against."""
    shown = (modules[other].versions[index] for other, places in chosen.items() for index in places if other != name)
    return {number for each in shown if name in each.peers for number in each.peers[name]["versions"][:1]}


def _every(places: Sequence[int], most: int) -> set[int]:
    """At most so many of these places, one in each stretch whose length is a power of two."""
    if most <= 0:
        return set()
    return set(places[:: 1 << max(0, -(-len(places) // most) - 1).bit_length()])
