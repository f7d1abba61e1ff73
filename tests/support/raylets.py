"""The nodes of a Ray cluster on this machine, in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

NODE: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}


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
