"""The Ray cluster that this process uses, and how much of it each job of a run gets.

Deliberately not here: actors (`keeper.py`) and what a backend does with them (`__init__.py`).
"""

from __future__ import annotations

import atexit
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
from typing import Any

from modtrain.backends.base import Job
from modtrain.backends.ray.keeper import NAMESPACE
from modtrain.errors import InputError, ModtrainError

ANSWER_S = 10.0
OBJECT_STORE_BYTES = 80 * 2**20
"""Little more than Ray insists on: nothing is stored there."""
LONGEST_TEMPORARY = 40
"""Bytes of a folder's name below which the names of Ray's sockets, which a system allows 107, still fit."""


def connect(address: str | None) -> Any:
    """The module `ray`, connected: to the cluster at `address`, else to an instance of our own on this machine.

    A connection that this process has already is used as it is.
    """
    with _settings(_ALWAYS | (_own_instance() if not address else {})):
        import ray

        if not ray.is_initialized():
            logging.getLogger("ray").setLevel(logging.ERROR)
            with _signal_handlers_kept():
                _join(address) if address else _start_instance()
    return ray


def connected() -> bool:
    """Whether this process uses a cluster already. Ray is not imported for that."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


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
    """What each job reserves on nodes with these CPUs and GPUs, scaled down until all fit.

    So little that all still fit when the largest node is lost, since a worker of a lost node must go somewhere.
    """
    wanted = max(job.resources.gpus for job in jobs)
    count = next((n for n in range(1, len(jobs) + 1) if sum(int(gpu) * n for gpu in gpus) >= len(jobs)), 0)
    gpu = min(1.0, wanted) / count if count else 0.0
    hosts = [cpu for cpu, there in zip(cpus, gpus, strict=True) if not gpu or there >= 1]
    survivors = sorted(hosts)[:-1] or hosts
    cpu = share(survivors, len(jobs), max(job.resources.cpus for job in jobs))
    if not cpu:
        raise InputError(f"The Ray cluster has no CPU for {len(jobs)} workers; its nodes have {sum(cpus):g} CPUs.")
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
def _settings(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for Ray's processes; what the user has set stays, and nothing stays behind."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; it is the launcher's."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    import ray

    try:
        _check_answers(address)
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"There is no Ray cluster at {address} ({error}). Start one there, or leave --address out (and RAY_ADDRESS "
            "unset) to run on this machine."
        ) from error


def _check_answers(address: str) -> None:
    """Ray itself asks an address where nobody listens for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


def _start_instance() -> None:
    import ray

    short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TEMPORARY
    folder = Path(tempfile.mkdtemp(prefix="modtrain-ray-", dir=None if short else "/tmp"))
    atexit.register(_end_instance, folder)
    try:
        ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=len(os.sched_getaffinity(0)),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
            # No idle processes in advance, and no killing of workers because others have filled the machine's memory.
            _system_config={"prestart_worker_first_driver": False, "memory_monitor_refresh_ms": 0},
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModtrainError(
            f"Ray cannot be started on this machine: {error}. --backend local does without it."
        ) from error


def _end_instance(folder: Path) -> None:
    import ray

    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
