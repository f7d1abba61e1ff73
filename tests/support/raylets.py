"""The nodes of a Ray cluster on this machine, in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from modtrain.storage.run import Run
from tests.support.command import until
from tests.support.fork_server import stand_in_of

T = TypeVar("T")

NODE: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
SLOWLY = ("--epochs", 20, "--set", "batches=10", "--set", "pause_s=0.05", "--exchange-every", 5)
"""Ten seconds of training with a full checkpoint every half second, as workers may start seconds apart."""


def started(start: Callable[[], T]) -> T:
    """What `start` returns, tried three times: Ray gives a node 30 s to start, which a busy machine may exceed."""
    for _ in range(2):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


def raylet_of(node: Any) -> str:
    return str(node.all_processes["raylet"][0].process.pid)


def until_all_is_free(raylets: Any) -> None:
    """The raylets take a moment to give back what the jobs of the test before held."""
    import ray

    if not ray.is_initialized():
        ray.init(address=raylets.address, log_to_driver=False, logging_level="ERROR")
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def new_run(path: Path) -> Run:
    """The run in a folder, as soon as a launch has created it."""
    until((path / "run.json").exists)
    return Run.open(path)


def node_of(pid: int) -> str:
    """The raylet that a worker's process belongs to: the parent of its parent."""
    pid = stand_in_of(pid)
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return str(pid)


def check_resumed(run: Run, module: str) -> None:
    """Assert that several workers have published the module, each resuming where the previous one left."""
    history = run.store(module).history()
    steps: dict[str, list[int]] = {}
    for checkpoint in history:
        steps.setdefault(checkpoint.writer, []).append(checkpoint.step)
    previous, *others = steps.values()
    assert others
    for following in others:
        assert 0 < following[0] <= previous[-1]
        previous = following
