"""The Ray cluster that this process uses, and how much of it each job of a run gets.

Deliberately not here: actors (`keeper.py`) and what is done with them (`actors.py`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from modtrain.errors import InputError, ModtrainError
from modtrain.scheduling.backends.base import Job
from modtrain.scheduling.backends.ray.supervisor import NAMESPACE

ANSWER_S = 10.0
OBJECT_STORE_BYTES = 80 * 2**20
"""Little more than Ray insists on: nothing is stored there."""
LONGEST_TEMPORARY = 19
"""Bytes of a folder's name below which the names of Ray's sockets, which a system allows 107, still fit."""
_FOLDERS: list[Path] = []
"""Of instances of our own."""


def connect(address: str | None) -> Any:
    """The module `ray`, connected: to the cluster at `address`, else to an instance of our own on this machine."""
    for name, value in (_ALWAYS if address else _ALWAYS | _own_instance()).items():
        os.environ.setdefault(name, value)  # Ray reads some of them when it is imported
    import ray

    if not ray.is_initialized():
        logging.getLogger("ray").setLevel(logging.ERROR)
        with _signal_handlers_kept():
            _join(address) if address else _start_instance()
    return ray


def leave() -> None:
    """End what belongs to this process: its actors, and an instance of our own."""
    ray = sys.modules.get("ray")
    if ray is not None:
        ray.shutdown()
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


def own_node_lives() -> bool:
    """Whether the cluster still counts the node that this process belongs to."""
    import ray

    own, nodes = ray.get_runtime_context().get_node_id(), cast(Any, ray.nodes)
    return any(node["NodeID"] == own and node["Alive"] for node in nodes())


def capacities(kind: str) -> list[float]:
    """How much of a resource (`CPU`, `GPU`) each node has, used or not."""
    import ray

    nodes: Any = ray.nodes
    return [float(node["Resources"].get(kind, 0.0)) for node in nodes() if node["Alive"]]


def share(available: Sequence[float], jobs: int, wanted: float) -> float:
    """The largest part, at most `wanted`, of which so many fit on nodes of these capacities; 0 where none does."""
    parts = {wanted} | {capacity / count for capacity in available for count in range(1, jobs + 1)}
    fitting = (
        part
        for part in parts
        if 0 < part <= wanted and sum(int(capacity / part + 1e-9) for capacity in available) >= jobs
    )
    return max(fitting, default=0.0)


def bundle_for(cpus: Sequence[float], gpus: Sequence[float], jobs: Sequence[Job]) -> dict[str, float]:
    """What each job reserves on nodes with these CPUs and GPUs, scaled down until all that run at once fit.

    So little that all still fit when the largest node is lost, since a worker of a lost node must go somewhere.
    """
    wanted = max(job.resources.gpus for job in jobs)
    there = max(len(jobs), *(job.resources.beside for job in jobs))
    count = next((n for n in range(1, there + 1) if sum(int(gpu) * n for gpu in gpus) >= there), 0)
    gpu = min(1.0, wanted) / count if count else 0.0
    hosts = [cpu for cpu, gpus_here in zip(cpus, gpus, strict=True) if not gpu or gpus_here >= 1]
    survivors = sorted(hosts)[:-1] or hosts
    cpu = share(survivors, there, max(job.resources.cpus for job in jobs))
    if not cpu:
        raise InputError(f"The Ray cluster has no CPU for {there} workers; its nodes have {sum(cpus):g} CPUs.")
    bundle = {"CPU": cpu, "GPU": gpu}
    return {kind: math.floor(part * 1e4) / 1e4 for kind, part in bundle.items() if part}


_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training is the work here, not something in the background
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # else the death of an actor is told in the middle of our own output
}


@functools.cache
def _own_instance() -> dict[str, str]:
    """For an instance of our own: every port on the loopback interface, and closed to the machine's other users.

    Ray reads the first when it is imported.
    """
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what Ray calls its choice of the loopback address
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    import ray

    try:
        _check_listens(address)
    except OSError as error:
        raise InputError(
            f"There is no Ray cluster at {address} ({error.strerror or error}). Start one there, or leave --address "
            "out (and RAY_ADDRESS unset) to run on this machine."
        ) from None
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"The Ray cluster at {address} did not let us join ({_first_sentence(error)}). Launch on a machine that "
            "has a node of it, with the same versions of Ray and Python; and if it wants a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to its file."
        ) from None


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


def _check_listens(address: str) -> None:
    """Ray itself asks an address where nobody listens for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


def _start_instance() -> None:
    import ray

    short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TEMPORARY
    folder = Path(tempfile.mkdtemp(prefix="modtrain-ray-", dir=None if short else "/tmp"))
    _FOLDERS.append(folder)
    try:
        ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=len(os.sched_getaffinity(0)),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder / "r"),  # which Ray opens to everybody on this machine
            # No idle processes in advance, and no killing of workers because others have filled the machine's memory.
            _system_config={"prestart_worker_first_driver": False, "memory_monitor_refresh_ms": 0},
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModtrainError(
            f"Ray cannot be started on this machine: {error}. --backend local does without it."
        ) from error
