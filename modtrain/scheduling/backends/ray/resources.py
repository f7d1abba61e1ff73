"""How much of a Ray cluster each job of a run reserves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from modtrain.errors import InputError
from modtrain.scheduling.backends.base import Job


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
        raise InputError(f"The Ray cluster has no CPU for {concurrent} workers; its nodes have {sum(cpus):g} CPUs.")
    bundle = {"CPU": cpu, "GPU": gpu}
    return {kind: math.floor(amount * 1e4) / 1e4 for kind, amount in bundle.items() if amount}
