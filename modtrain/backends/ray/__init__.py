"""Jobs as Ray actors, spread over the nodes of a cluster: the default backend.

Where no cluster is named (`--address`, `RAY_ADDRESS`), an instance of our own is started on this machine, reachable
from nowhere else, and ends with this process. Deliberately not here: data. Nothing but a command, a state and an exit
code ever passes through Ray; what a command has done is in the store.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from modtrain import fs
from modtrain.backends.base import BackendOptions, Job, JobState
from modtrain.backends.ray.cluster import bundle_for, capacities, connect, connected, share
from modtrain.backends.ray.keeper import NAMESPACE, Keeper
from modtrain.errors import InputError

ANSWER_S = 2.0
"""How long a status call waits for actors that do not answer: they are being started, or their node is dying."""
PLACE_S = 60.0
CANCEL_S = 10.0


class RayBackend:
    """Actors. An id is `<actor's name>@<log>`: it finds the job from every process that joins the same cluster."""

    restarts = True

    def __init__(self, options: BackendOptions) -> None:
        """Nothing is started or joined before it is needed."""
        self._options = options
        self._address = options.address or os.environ.get("RAY_ADDRESS")
        self._actors: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}

    def cores(self, jobs: int) -> int:
        """The share of each job in the cores of the cluster, whatever else runs there."""
        connect(self._address)
        return max(1, int(share(capacities("CPU"), jobs, math.inf)))

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Start an actor for each job; one that is running already stays. InputError where they cannot be placed."""
        if self._options.keep and not self._address:
            raise InputError(
                "--backend ray without --address is an instance of our own that ends with this command, so its workers "
                "cannot be left behind. Name a cluster (--address, RAY_ADDRESS), or take --backend local."
            )
        connect(self._address)
        running = {id for id, state in self.status([_id(job) for job in jobs]).items() if state.live}
        missing = [job for job in jobs if _id(job) not in running]
        for job in missing:
            self._make_room(job)
        for job, strategy in zip(missing, self._places(missing), strict=True):
            self._start(job, strategy)
        return [_id(job) for job in jobs]

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Pending also while an actor is started again; ended with the command's last exit code."""
        if not ids or not self._reachable():
            return dict.fromkeys(ids, JobState(phase="unknown"))
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
            phase, exit_code, log = "ended", None, id.partition("@")[2]
        del self._asked[id]
        return JobState(phase=phase, exit_code=exit_code) if id.endswith("@" + log) else JobState(phase="unknown")

    def _reachable(self) -> bool:
        """Whether there is a cluster to ask: an instance of our own is not started only to ask it."""
        return bool(self._address) or connected()

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

    def _places(self, jobs: Sequence[Job]) -> list[Any]:
        """A scheduling strategy for each job: its place of before where it had one, else in a new placement group."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy

        found = {job.name: place for job in jobs if (place := _place_of(job.name))}
        new = [job for job in jobs if job.name not in found]
        if new:
            group = self._new_group(new)
            found |= {job.name: (group, index) for index, job in enumerate(new)}
        places = [found[job.name] for job in jobs]
        return [Strategy(placement_group=group, placement_group_bundle_index=index) for group, index in places]

    def _new_group(self, jobs: Sequence[Job]) -> Any:
        import ray

        bundle = bundle_for(capacities("CPU"), capacities("GPU"), jobs)
        lifetime = "detached" if self._options.keep else None
        name = json.dumps([job.name for job in jobs])
        group = ray.util.placement_group([bundle] * len(jobs), strategy="SPREAD", name=name, lifetime=lifetime)
        if not group.wait(timeout_seconds=PLACE_S):
            ray.util.remove_placement_group(group)
            available: Any = ray.available_resources
            free = {kind: available().get(kind, 0.0) for kind in bundle}
            raise InputError(
                f"The Ray cluster found no place for {len(jobs)} workers with {_said(bundle)} each within "
                f"{PLACE_S:.0f} s; {_said(free)} are free now. Wait for what runs there, or add nodes."
            )
        return group

    def _start(self, job: Job, strategy: Any) -> None:
        import ray

        group = strategy.placement_group
        bundle = group.bundle_specs[strategy.placement_group_bundle_index]
        siblings = json.loads(ray.util.placement_group_table(group)["name"]) if self._options.keep else []
        self._asked.pop(_id(job), None)
        self._actors[_id(job)] = (
            ray.remote(Keeper)
            .options(
                name=job.name,
                namespace=NAMESPACE,
                lifetime="detached" if self._options.keep else None,
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
    fs.wait_until(lambda: None if any(_actor(name) is not None for name in names) else True, timeout_s=CANCEL_S)


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


backend = RayBackend
"""What `--backend ray` means."""
