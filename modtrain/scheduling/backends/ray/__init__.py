"""Jobs as Ray actors, spread over the nodes of a cluster: the default backend.

Where no cluster is named (`--address`, `RAY_ADDRESS`), an instance of our own is started on this machine, reachable
from nowhere else, and ends with this process. Deliberately not here: data. Nothing but a command, a state and an exit
code ever passes through Ray; what a command has done is in the store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from modtrain.errors import BackendSilent, ClusterLost, InputError
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState
from modtrain.scheduling.backends.ray.driver import Driver, driver
from modtrain.scheduling.profile import only

PLACE_S = 60.0
SUBMIT_S = 300.0
STATUS_S = 15.0
CANCEL_S = 30.0


class RayBackend:
    """Actors. An id is `<actor's name>@<log>`: it finds the job from every process that joins the same cluster."""

    restarts = True
    unattended = False
    poll_s = 0.5

    def __init__(self, options: BackendOptions) -> None:
        """Nothing is started or joined before it is needed."""
        only(options.profile, ("cpus",), "ray")
        self._keep = options.keep
        self._address = options.address or os.environ.get("RAY_ADDRESS")
        self._driver: Driver | None = None

    def check(self) -> None:
        """InputError where there is no cluster at the address, or it does not let us in."""
        if self._address:
            self._joined()

    def cores(self, jobs: int) -> int:
        """The share of each job in the cores of the cluster, whatever else runs there."""
        return int(self._joined().ask("cores", jobs, within_s=SUBMIT_S))

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Start an actor for each job; one that is running already stays. InputError where they cannot be placed."""
        if self._keep and not self._address:
            raise InputError(
                "--backend ray without --address is an instance of our own that ends with this command, so its workers "
                "cannot be left behind. Name a cluster (--address, RAY_ADDRESS), or take --backend local."
            )
        return list(self._joined().ask("submit", list(jobs), self._keep, PLACE_S, within_s=SUBMIT_S))

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Pending also while an actor is started again; ended with the command's last exit code.

        BackendSilent while the cluster does not answer, ClusterLost once it is gone and its jobs with it.
        """
        if not ids or not self._reachable():
            return dict.fromkeys(ids, JobState(phase="unknown"))
        return dict(self._joined().ask("status", list(ids), within_s=STATUS_S))

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the commands, then their actors, and free the places that nobody uses any more."""
        if not ids or not self._reachable():
            return
        with contextlib.suppress(ClusterLost):  # they are over, or about to be
            try:
                self._joined().ask("cancel", list(ids), within_s=CANCEL_S)
            except BackendSilent:
                if self._keep:
                    raise
                self._joined().leave()  # a cluster ends what belongs to a process that is gone

    def _reachable(self) -> bool:
        """Whether there is a cluster to ask: an instance of our own is not started only to ask it."""
        return bool(self._address) or self._driver is not None

    def _joined(self) -> Driver:
        """The same until the end: what a lost one had started is not found by another."""
        if self._driver is None:
            self._driver = driver(self._address)
        return self._driver


backend = RayBackend
"""What `--backend ray` means."""
