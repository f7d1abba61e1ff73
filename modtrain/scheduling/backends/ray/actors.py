"""Jobs as actors on the cluster that this process has joined: placing them, asking them, ending them.

Runs in the driver's process alone (`driver.py`). Deliberately not here: what an actor does (`keeper.py`), and the
cluster itself (`cluster.py`).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modtrain.errors import ClusterLost, InputError
from modtrain.scheduling.backends.base import Job, JobState
from modtrain.scheduling.backends.ray.cluster import bundle_for, capacities, connect, own_node_lives, share
from modtrain.scheduling.backends.ray.supervisor import NAMESPACE, Keeper
from modtrain.storage import filesystem

ANSWER_S = 2.0
"""How long a status call waits for actors that do not answer: they are being started, or their node is dying."""
PLACE_S = 60.0
CANCEL_S = 10.0


class Actors:
    """The methods are the questions that `Driver.ask` can ask."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._actors: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}

    def join(self) -> None:
        """InputError where there is no cluster, or it does not let us in."""
        connect(self._address)

    def cores(self, jobs: int) -> int:
        """The share of each job in the cores of the cluster, whatever else runs there."""
        connect(self._address)
        return max(1, int(share(capacities("CPU"), jobs, math.inf)))

    def submit(self, jobs: Sequence[Job], keep: bool, place_s: float) -> list[str]:
        """Start an actor for each job; one that is running already stays. InputError where they cannot be placed."""
        running = {id for id, state in self.status([_id(job) for job in jobs]).items() if state.live}
        missing = [job for job in jobs if _id(job) not in running]
        for job in missing:
            self._make_room(job)
        for job, strategy in zip(missing, self._places(missing, keep, place_s), strict=True):
            self._start(job, strategy, keep)
        return [_id(job) for job in jobs]

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Pending also while an actor is started again; ended with the command's last exit code."""
        ray = connect(self._address)
        for id in ids:
            if id not in self._asked and (actor := self._actors.get(id) or _actor(_name(id))) is not None:
                self._asked[id] = actor.state.remote()
        asked = [self._asked[id] for id in dict.fromkeys(ids) if id in self._asked]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
        return {id: self._answer(id) for id in dict.fromkeys(ids)}

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the commands, then their actors, and free the places that nobody uses any more."""
        ours = [id for id, state in self.status(ids).items() if state.phase != "unknown"]
        if not ours:
            return
        import ray

        actors = [actor for id in ours if (actor := self._actors.pop(id, None) or _actor(_name(id))) is not None]
        if actors:
            ray.wait([actor.end.remote() for actor in actors], num_returns=len(actors), timeout=CANCEL_S / 2)
        for actor in actors:
            ray.kill(actor, no_restart=True)
        names = [_name(id) for id in ours]
        _wait_until_gone(names)
        _free_places(names)

    def _answer(self, id: str) -> JobState:
        """What an actor answered to `state`; the question stays open until it is answered."""
        import ray

        if id not in self._asked:
            return JobState(phase="ended" if id in self._actors else "unknown")
        try:
            phase, exit_code, log = ray.get(self._asked[id], timeout=0)
        except ray.exceptions.GetTimeoutError:
            return JobState(phase="pending")
        except ray.exceptions.ActorUnavailableError:
            phase, exit_code, log = "pending", None, id.partition("@")[2]
        except ray.exceptions.RayActorError:
            self._check_own_node()
            phase, exit_code, log = "ended", None, id.partition("@")[2]
        del self._asked[id]
        return JobState(phase=phase, exit_code=exit_code) if id.endswith("@" + log) else JobState(phase="unknown")

    def _check_own_node(self) -> None:
        """A cluster ends the actors of a process whose own node it has lost, wherever they run."""
        if not own_node_lives():
            raise ClusterLost(
                "The Ray node on the machine of this launch is lost, and its workers end with it. What they have "
                "published is not: start the node (or a cluster) again, launch the run again, and it goes on."
            )

    def _make_room(self, job: Job) -> None:
        """Take away the actor of an earlier job of this name that is over."""
        import ray

        if (actor := _actor(job.name)) is None:
            return
        phase, _, log = ray.get(actor.state.remote(), timeout=PLACE_S)
        if log != str(job.log) and phase != "ended":
            raise InputError(f"Another run of this name has its worker {job.name} on this Ray cluster; see {log}.")
        ray.kill(actor, no_restart=True)
        _wait_until_gone([job.name])

    def _places(self, jobs: Sequence[Job], keep: bool, place_s: float) -> list[Any]:
        """A scheduling strategy for each job: its place of before where it had one, else in a new placement group."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy

        found = {job.name: place for job in jobs if (place := _place_of(job.name))}
        new = [job for job in jobs if job.name not in found]
        if new:
            group = _new_group(new, keep, place_s)
            found |= {job.name: (group, index) for index, job in enumerate(new)}
        places = [found[job.name] for job in jobs]
        return [Strategy(placement_group=group, placement_group_bundle_index=index) for group, index in places]

    def _start(self, job: Job, strategy: Any, keep: bool) -> None:
        import ray

        group = strategy.placement_group
        bundle = group.bundle_specs[strategy.placement_group_bundle_index]
        siblings = json.loads(ray.util.placement_group_table(group)["name"]) if keep else []
        self._asked.pop(_id(job), None)
        self._actors[_id(job)] = (
            ray.remote(Keeper)
            .options(
                name=job.name,
                namespace=NAMESPACE,
                lifetime="detached" if keep else None,
                max_restarts=-1,
                max_task_retries=0,
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=strategy,
                runtime_env={"env_vars": dict(job.environment)},
            )
            .remote(job.command, str(job.log), siblings)
        )


def _id(job: Job) -> str:
    return f"{job.name}@{job.log}"


def _name(id: str) -> str:
    """The actor of an id. A name has no slash, and a log's path begins with one."""
    return id.partition("@/")[0]


def _actor(name: str) -> Any:
    import ray

    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _wait_until_gone(names: Sequence[str]) -> None:
    filesystem.wait_until(lambda: None if any(_actor(name) is not None for name in names) else True, timeout_s=CANCEL_S)


def _new_group(jobs: Sequence[Job], keep: bool, place_s: float) -> Any:
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
            f"The Ray cluster found no place for {len(jobs)} workers with {_said(bundle)} each within "
            f"{place_s:.0f} s; {_said(free)} are free now. Wait for what runs there, or add nodes."
        )
    return group


def _groups() -> dict[str, list[str]]:
    """The placement groups of this project, by name, each with the names of its jobs in order."""
    import ray

    there = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    return {group["name"]: json.loads(group["name"]) for group in there if group["name"].startswith('["')}


def _place_of(name: str) -> tuple[Any, int] | None:
    import ray

    for group, jobs in _groups().items():
        if name in jobs:
            with contextlib.suppress(ValueError):
                return ray.util.get_placement_group(group), jobs.index(name)
    return None


def _free_places(names: Sequence[str]) -> None:
    """Remove the placement groups of these jobs that hold no actor any more."""
    import ray

    for group, jobs in _groups().items():
        if set(jobs) & set(names) and all(_actor(job) is None for job in jobs):
            with contextlib.suppress(ValueError):
                ray.util.remove_placement_group(ray.util.get_placement_group(group))


def _said(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
