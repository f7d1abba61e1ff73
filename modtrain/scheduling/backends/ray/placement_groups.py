"""Ray placement groups: the resources that jobs reserve together. A group is named by the JSON list of its jobs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from modtrain.errors import InputError
from modtrain.scheduling.backends.base import Job
from modtrain.scheduling.backends.ray.resources import bundle_for, capacities
from modtrain.scheduling.backends.ray.supervisor import find_actor


def placements(jobs: Sequence[Job], keep: bool, place_s: float) -> list[tuple[Any, int]]:
    """Placement group and bundle of each job: its earlier one, else one in a new group of all that have none.

    InputError where the cluster has no room for the new group within `place_s`.
    """
    places = {job.name: place for job in jobs if (place := _existing(job.name))}
    new = [job for job in jobs if job.name not in places]
    if new:
        group = _create(new, keep, place_s)
        places |= {job.name: (group, index) for index, job in enumerate(new)}
    return [places[job.name] for job in jobs]


def remove_empty(names: Sequence[str]) -> None:
    """Remove the placement groups of these jobs that have no actor any more."""
    import ray

    for group, jobs in _groups().items():
        if set(jobs) & set(names) and all(find_actor(job) is None for job in jobs):
            with contextlib.suppress(ValueError):
                ray.util.remove_placement_group(ray.util.get_placement_group(group))


def job_names(group: Any) -> list[str]:
    """Names of the jobs of a placement group, in the order of its bundles."""
    import ray

    return list(json.loads(ray.util.placement_group_table(group)["name"]))


def _create(jobs: Sequence[Job], keep: bool, place_s: float) -> Any:
    import ray

    bundle = bundle_for(capacities("CPU"), capacities("GPU"), jobs)
    lifetime = "detached" if keep else None
    name = json.dumps([job.name for job in jobs])
    group = ray.util.placement_group([bundle] * len(jobs), strategy="SPREAD", name=name, lifetime=lifetime)
    if not group.wait(timeout_seconds=place_s):
        ray.util.remove_placement_group(group)
        available: Any = ray.available_resources
        free = {kind: available().get(kind, 0.0) for kind in bundle}
        raise InputError(
            f"The Ray cluster has no room for {len(jobs)} workers with {_amounts(bundle)} each: after {place_s:.0f} s "
            f"{_amounts(free)} are free. Wait for the jobs that run there, or add nodes."
        )
    return group


def _groups() -> dict[str, list[str]]:
    """The placement groups of this project: the names of their jobs, by group name."""
    import ray

    table = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    return {group["name"]: json.loads(group["name"]) for group in table if group["name"].startswith('["')}


def _existing(name: str) -> tuple[Any, int] | None:
    import ray

    for group, jobs in _groups().items():
        if name in jobs:
            with contextlib.suppress(ValueError):
                return ray.util.get_placement_group(group), jobs.index(name)
    return None


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
