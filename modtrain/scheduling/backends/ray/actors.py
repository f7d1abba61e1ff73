"""Jobs as actors on a Ray cluster: starts them, asks for their state, ends them. The program of the driver process.

It answers calls from a pipe until the other end is closed. `supervisor.py` is what an actor does.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import textwrap
import traceback
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection
from typing import Any

from modtrain.errors import ClusterLost, ModtrainError
from modtrain.scheduling.backends.base import Job, JobState
from modtrain.scheduling.backends.ray import cluster, placement_groups
from modtrain.scheduling.backends.ray.cluster import find_actor
from modtrain.scheduling.backends.ray.supervisor import Supervisor
from modtrain.storage import filesystem

ANSWER_S = 2.0
"""Longest wait of a status call for actors that do not answer, because they are starting or their node is dying."""
CANCEL_S = 10.0


class Actors:
    """The jobs of one launch. Public methods are those that `Driver.call` can call."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._actors: dict[str, Any] = {}
        self._state_calls: dict[str, Any] = {}
        """Calls of `Supervisor.state` without a result yet, by job id."""

    def join(self) -> None:
        cluster.connect(self._address)

    def cores(self, jobs: int) -> int:
        return max(1, int(placement_groups.share(placement_groups.capacities("CPU"), jobs, math.inf)))

    def submit(self, jobs: Sequence[Job], place_s: float) -> list[str]:
        running = {id for id, state in self.status([_id(job) for job in jobs]).items() if state.live}
        missing = {_id(job): job for job in jobs if _id(job) not in running}
        _remove(missing)
        for id, (group, bundle) in placement_groups.placements(missing, place_s).items():
            self._start(id, missing[id], group, bundle)
        return [_id(job) for job in jobs]

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Pending also while an actor is being restarted; ended with the command's last exit code."""
        import ray

        for id in ids:
            if id not in self._state_calls and (actor := self._actors.get(id) or find_actor(id)) is not None:
                self._state_calls[id] = actor.state.remote()
        calls = [self._state_calls[id] for id in dict.fromkeys(ids) if id in self._state_calls]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=ANSWER_S)
        return {id: self._state(id) for id in dict.fromkeys(ids)}

    def cancel(self, ids: Sequence[str]) -> None:
        import ray

        known = [id for id, state in self.status(ids).items() if state.phase != "unknown"]
        actors = [actor for id in known if (actor := self._actors.pop(id, None) or find_actor(id)) is not None]
        if actors:
            ray.wait([actor.end.remote() for actor in actors], num_returns=len(actors), timeout=CANCEL_S / 2)
        _remove(known)
        placement_groups.remove_empty(known)

    def _state(self, id: str) -> JobState:
        """Result of the open state call of a job; pending while there is none."""
        import ray

        if id not in self._state_calls:
            return JobState(phase="ended" if id in self._actors else "unknown")
        try:
            phase, exit_code = ray.get(self._state_calls[id], timeout=0)
        except ray.exceptions.GetTimeoutError:
            return JobState(phase="pending")
        except ray.exceptions.ActorUnavailableError:
            phase, exit_code = "pending", None
        except ray.exceptions.RayActorError:
            if not cluster.own_node_is_alive():  # Ray then ends all actors of this process, on any node
                raise ClusterLost(
                    "The Ray node on the machine of this launch is lost, and its workers with it. What they have "
                    "published is kept: start the node or a cluster again and launch the run again to continue it."
                ) from None
            phase, exit_code = "ended", None
        del self._state_calls[id]
        return JobState(phase=phase, exit_code=exit_code)

    def _start(self, id: str, job: Job, group: Any, bundle: int) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        reserved = group.bundle_specs[bundle]
        self._state_calls.pop(id, None)
        self._actors[id] = (
            ray.remote(Supervisor)
            .options(
                name=id,
                max_restarts=-1,
                num_cpus=reserved.get("CPU", 0),
                num_gpus=reserved.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=bundle
                ),
                runtime_env={"env_vars": dict(job.environment)},
            )
            .remote(job.command, str(job.log))
        )


def _id(job: Job) -> str:
    return f"{job.name}@{job.log}"


def _remove(ids: Collection[str]) -> None:
    """End these actors, if there are any, and wait until their names are free."""
    import ray

    for id in ids:
        if (actor := find_actor(id)) is not None:
            ray.kill(actor, no_restart=True)
    filesystem.wait_until(lambda: None if any(find_actor(id) is not None for id in ids) else True, timeout_s=CANCEL_S)


def _result(actors: Actors, method: str, arguments: tuple[object, ...]) -> object:
    try:
        return getattr(actors, method)(*arguments)
    except ModtrainError as error:
        return error
    except Exception as error:  # of any type: Ray raises also a plain Exception
        failed = ModtrainError(f"Ray failed: {type(error).__name__}: {textwrap.shorten(str(error), 300)}")
        failed.add_note("".join(traceback.format_exception(error)))  # which the pipe would not pass on as its cause
        return failed


def main() -> None:
    """Read the address, then calls as (method of `Actors`, arguments); write each result or error."""
    # A scheduler's SIGTERM is handled by the launcher, which closes the pipe. A handler, as SIG_IGN would be inherited.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    pipe: Connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, OSError):
        actors = Actors(pipe.recv())
        while True:
            method, arguments = pipe.recv()
            pipe.send(_result(actors, method, arguments))
    cluster.leave()


if __name__ == "__main__":
    main()
