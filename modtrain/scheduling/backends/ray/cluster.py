"""The Ray cluster of this process: joining one, starting an instance on this machine, leaving."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from modtrain.errors import InputError, ModtrainError

NAMESPACE = "modtrain"
CONNECT_S = 10.0
RAY_START_S = 30.0
"""How long Ray lets its node start, which nothing can change; then it raises an error that contains TIMED_OUT."""
TIMED_OUT = "timed out during startup"
OBJECT_STORE_BYTES = 80 * 2**20
"""Slightly more than Ray's minimum: nothing is stored there."""
MAX_TEMPORARY_BYTES = 19
"""Longest path of the temporary folder with which the paths of Ray's sockets stay within the system's 107 bytes."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training is not background work
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # else Ray prints the deaths of actors into our output
}
_PRIVATE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For an instance with all ports on the loopback interface; with a token it is closed to other users of the machine."""
_FOLDERS: list[Path] = []
"""Of the instances that this process started."""


def connect(address: str | None) -> None:
    """Join the cluster at `address`, else start an instance on this machine. Called once in a process."""
    environment = _ENVIRONMENT if address else _ENVIRONMENT | _PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in environment.items():
        os.environ.setdefault(name, value)  # Ray reads some of them at import
    import ray

    logging.getLogger(ray.__name__).setLevel(logging.ERROR)
    handler = signal.getsignal(signal.SIGTERM)
    _join(address) if address else _start_instance()
    signal.signal(signal.SIGTERM, handler)  # which Ray has replaced


def leave() -> None:
    """End the actors of this process and the instance that it started."""
    if ray := sys.modules.get("ray"):
        ray.shutdown()
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


def find_actor(name: str) -> Any:
    """The actor of this name in the cluster that this process has joined; None where there is none."""
    import ray

    try:
        return ray.get_actor(name)
    except ValueError:
        return None


def own_node_is_alive() -> bool:
    """Whether the cluster still has the node of this process."""
    import ray

    own, nodes = ray.get_runtime_context().get_node_id(), cast(Any, ray.nodes)
    return any(node["NodeID"] == own and node["Alive"] for node in nodes())


def _join(address: str) -> None:
    import ray

    host, colon, port = address.rpartition("://")[2].rpartition(":")
    try:
        if colon and port.isdecimal():  # Ray itself would try for many minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise InputError(
            f"There is no Ray cluster at {address} ({error.strerror or error}). Start one there, or omit --address and "
            "unset RAY_ADDRESS to run on this machine."
        ) from None
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise InputError(
            f"The Ray cluster at {address} refused this process ({reason}). Launch on a machine that "
            "is one of its nodes, with the same versions of Ray and Python. If it requires a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the token's file."
        ) from None


def _start_instance() -> None:
    import ray

    short = len(os.fsencode(tempfile.gettempdir())) <= MAX_TEMPORARY_BYTES
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
            _temp_dir=str(folder / "r"),  # Ray makes it readable for every user; its parent is private
            # Start no idle processes, and kill no worker because other programs fill the machine's memory.
            _system_config={"prestart_worker_first_driver": False, "memory_monitor_refresh_ms": 0},
        )
    except Exception as error:  # one that has no class of its own says that it took too long
        if TIMED_OUT in str(error):
            raise ModtrainError(too_slow(RAY_START_S)) from error
        raise ModtrainError(
            f"Ray cannot be started on this machine: {str(error).rstrip('.')}. --backend local works without it."
        ) from error


def too_slow(seconds: float) -> str:
    """That Ray has not started here within its time, and what to do."""
    return (
        f"Ray did not start on this machine within {seconds:g} s: other programs keep it busy. Launch again when it "
        "has less to do, or with --backend local, which works without Ray."
    )
