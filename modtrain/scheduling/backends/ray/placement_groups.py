"""Ray placement groups: the resources that jobs reserve together. A group is named by the ids of its jobs, as JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modtrain.errors import InputError, counted
from modtrain.scheduling.backends.base import Job
from modtrain.scheduling.backends.ray.cluster import find_actor


def capacities(kind: str) -> list[float]:
    """Total amount of a resource (`CPU`, `GPU`) on each node, whether it is in use or not."""
    import ray

    nodes: Any = ray.nodes
    return [float(node["Resources"].get(kind, 0.0)) for node in nodes() if node["Alive"]]


def share(available: Sequence[float], jobs: int, wanted: float) -> float:
    """The largest amount, at most `wanted`, that fits `jobs` times on nodes of these capacities; 0 where none does."""
    amounts = {wanted} | {capacity / count for capacity in available for count in range(1, jobs + 1)}
    fitting = (
        amount
        for amount in amounts
        if 0 < amount <= wanted and sum(int(capacity / amount + 1e-9) for capacity in available) >= jobs
    )
    return max(fitting, default=0.0)


def bundle_for(cpus: Sequence[float], gpus: Sequence[float], jobs: Sequence[Job]) -> dict[str, float]:
    """What each job reserves on nodes with these CPUs and GPUs, scaled down until all concurrent jobs fit.

    All still fit when the largest node is lost, as its workers move to the other nodes. InputError without any CPU.
    """
    wanted = max(job.resources.gpus for job in jobs)
    concurrent = max(len(jobs), *(job.resources.concurrent_jobs for job in jobs))
    sharers = (n for n in range(1, concurrent + 1) if sum(int(gpu) * n for gpu in gpus) >= concurrent)
    count = next(sharers, 0)
    gpu = min(1.0, wanted) / count if count else 0.0
    hosts = [cpu for cpu, node_gpus in zip(cpus, gpus, strict=True) if not gpu or node_gpus >= 1]
    survivors = sorted(hosts)[:-1] or hosts
    cpu = share(survivors, concurrent, max(job.resources.cpus for job in jobs))
    if not cpu:
        raise InputError(
            f"The Ray cluster has no CPU for {counted(concurrent, 'worker')}; its nodes have {sum(cpus):g} CPUs."
        )
    bundle = {"CPU": cpu, "GPU": gpu}
    return {kind: math.floor(amount * 1e4) / 1e4 for kind, amount in bundle.items() if amount}


def placements(jobs: Mapping[str, Job], place_s: float) -> dict[str, tuple[Any, int]]:
    """Placement group and bundle of each job: its earlier one, else one in a new group of all that have none.

    InputError where the cluster has no room for the new group within `place_s`.
    """
    places = {id: place for id in jobs if (place := _existing(id))}
    new = {id: job for id, job in jobs.items() if id not in places}
    if new:
        group = _create(new, place_s)
        places |= {id: (group, index) for index, id in enumerate(new)}
    return places


def remove_empty(ids: Sequence[str]) -> None:
    """Remove the placement groups of these jobs that have no actor any more."""
    import ray

    for group, jobs in _groups().items():
        if set(jobs) & set(ids) and all(find_actor(job) is None for job in jobs):
            with contextlib.suppress(ValueError):
                ray.util.remove_placement_group(ray.util.get_placement_group(group))


def _create(jobs: Mapping[str, Job], place_s: float) -> Any:
    import ray

    bundle = bundle_for(capacities("CPU"), capacities("GPU"), list(jobs.values()))
    group = ray.util.placement_group([bundle] * len(jobs), strategy="SPREAD", name=json.dumps(list(jobs)))
    if not group.wait(timeout_seconds=place_s):
        ray.util.remove_placement_group(group)
        available: Any = ray.available_resources
        free = {kind: available().get(kind, 0.0) for kind in bundle}
        wanted = counted(len(jobs), "worker")
        raise InputError(
            f"The Ray cluster has no room for {wanted} with {_amounts(bundle)} each: after {place_s:.0f} s "
            f"{_amounts(free)} are free. Wait for the jobs that run there, or add nodes."
        )
    return group


def _groups() -> dict[str, list[str]]:
    """The placement groups of this project: the ids of their jobs, by group name."""
    import ray

    table = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    return {group["name"]: json.loads(group["name"]) for group in table if group["name"].startswith('["')}


def _existing(id: str) -> tuple[Any, int] | None:
    import ray

    for group, jobs in _groups().items():
        if id in jobs:
            with contextlib.suppress(ValueError):
                return ray.util.get_placement_group(group), jobs.index(id)
    return None


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
