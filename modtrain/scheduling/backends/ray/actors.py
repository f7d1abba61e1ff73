"""Jobs as actors on the cluster that this process has joined: starts them, asks for their state, ends them.

Runs only in the driver process (`driver.py`). `supervisor.py` is what an actor does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from modtrain.errors import ClusterLost, InputError
from modtrain.scheduling.backends.base import Job, JobState
from modtrain.scheduling.backends.ray import placement_groups
from modtrain.scheduling.backends.ray.cluster import connect, own_node_is_alive
from modtrain.scheduling.backends.ray.resources import capacities, share
from modtrain.scheduling.backends.ray.supervisor import NAMESPACE, Supervisor, find_actor
from modtrain.storage import filesystem

ANSWER_S = 2.0
"""Longest wait of a status call for actors that do not answer, because they are starting or their node is dying."""
STATE_S = 60.0
CANCEL_S = 10.0


class Actors:
    """The jobs of one launch. Public methods are those that `Driver.call` can call."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._actors: dict[str, Any] = {}
        self._state_calls: dict[str, Any] = {}
        """Calls of `Supervisor.state` without a result yet, by job id."""

    def join(self) -> None:
        """InputError where there is no cluster, or it refuses this process."""
        connect(self._address)

    def cores(self, jobs: int) -> int:
        """Equal share of the cluster's cores, whether they are in use or not."""
        connect(self._address)
        return max(1, int(share(capacities("CPU"), jobs, math.inf)))

    def submit(self, jobs: Sequence[Job], keep: bool, place_s: float) -> list[str]:
        """Start an actor for each job that is not running already. InputError where they cannot be placed."""
        running = {id for id, state in self.status([_id(job) for job in jobs]).items() if state.live}
        missing = [job for job in jobs if _id(job) not in running]
        for job in missing:
            self._remove_ended(job)
        for job, (group, bundle) in zip(missing, placement_groups.placements(missing, keep, place_s), strict=True):
            self._start(job, group, bundle, keep)
        return [_id(job) for job in jobs]

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Pending also while an actor is being restarted; ended with the command's last exit code."""
        ray = connect(self._address)
        for id in ids:
            if id not in self._state_calls and (actor := self._actors.get(id) or find_actor(_name(id))) is not None:
                self._state_calls[id] = actor.state.remote()
        calls = [self._state_calls[id] for id in dict.fromkeys(ids) if id in self._state_calls]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=ANSWER_S)
        return {id: self._state(id) for id in dict.fromkeys(ids)}

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the commands, then their actors, and remove the placement groups that are empty then."""
        known = [id for id, state in self.status(ids).items() if state.phase != "unknown"]
        if not known:
            return
        import ray

        actors = [actor for id in known if (actor := self._actors.pop(id, None) or find_actor(_name(id))) is not None]
        if actors:
            ray.wait([actor.end.remote() for actor in actors], num_returns=len(actors), timeout=CANCEL_S / 2)
        for actor in actors:
            ray.kill(actor, no_restart=True)
        names = [_name(id) for id in known]
        _wait_until_gone(names)
        placement_groups.remove_empty(names)

    def _state(self, id: str) -> JobState:
        """Result of the open state call of a job; pending while there is none."""
        import ray

        if id not in self._state_calls:
            return JobState(phase="ended" if id in self._actors else "unknown")
        try:
            phase, exit_code, log = ray.get(self._state_calls[id], timeout=0)
        except ray.exceptions.GetTimeoutError:
            return JobState(phase="pending")
        except ray.exceptions.ActorUnavailableError:
            phase, exit_code, log = "pending", None, id.partition("@")[2]
        except ray.exceptions.RayActorError:
            self._check_own_node()
            phase, exit_code, log = "ended", None, id.partition("@")[2]
        del self._state_calls[id]
        return JobState(phase=phase, exit_code=exit_code) if id.endswith("@" + log) else JobState(phase="unknown")

    def _check_own_node(self) -> None:
        """ClusterLost where the cluster has lost this process's node: Ray then ends all its actors, on any node."""
        if not own_node_is_alive():
            raise ClusterLost(
                "The Ray node on the machine of this launch is lost, and its workers with it. What they have published "
                "is kept: start the node or a cluster again and launch the run again to continue it."
            )

    def _remove_ended(self, job: Job) -> None:
        """Remove the actor of an earlier job of this name; InputError where another run's actor of this name runs."""
        import ray

        if (actor := find_actor(job.name)) is None:
            return
        phase, _, log = ray.get(actor.state.remote(), timeout=STATE_S)
        if log != str(job.log) and phase != "ended":
            raise InputError(
                f"Another run of this name has its worker {job.name} on this Ray cluster (log: {log}). Choose another "
                "--name, or stop that run."
            )
        ray.kill(actor, no_restart=True)
        _wait_until_gone([job.name])

    def _start(self, job: Job, group: Any, bundle: int, keep: bool) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        reserved = group.bundle_specs[bundle]
        self._state_calls.pop(_id(job), None)
        self._actors[_id(job)] = (
            ray.remote(Supervisor)
            .options(
                name=job.name,
                namespace=NAMESPACE,
                lifetime="detached" if keep else None,
                max_restarts=-1,
                max_task_retries=0,
                num_cpus=reserved.get("CPU", 0),
                num_gpus=reserved.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=bundle
                ),
                runtime_env={"env_vars": dict(job.environment)},
            )
            .remote(job.command, str(job.log), placement_groups.job_names(group) if keep else [])
        )


def _id(job: Job) -> str:
    return f"{job.name}@{job.log}"


def _name(id: str) -> str:
    """The actor's name in an id: it has no slash, and the path of a log begins with one."""
    return id.partition("@/")[0]


def _wait_until_gone(names: Sequence[str]) -> None:
    filesystem.wait_until(
        lambda: None if any(find_actor(name) is not None for name in names) else True, timeout_s=CANCEL_S
    )
