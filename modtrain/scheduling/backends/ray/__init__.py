"""Jobs as Ray actors, spread over the nodes of a cluster: the default backend.

Without an address (`--address`, `RAY_ADDRESS`) an instance is started on this machine, closed to other users, and ends
with this process. Only a command, a state and an exit code ever pass through Ray; results are in the run's folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from modtrain.errors import BackendSilent, ClusterLost, InputError
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState
from modtrain.scheduling.backends.ray.driver import Driver, driver
from modtrain.scheduling.profile import check_supported

PLACE_S = 60.0
SUBMIT_S = 300.0
STATUS_S = 15.0
CANCEL_S = 30.0


class RayBackend:
    """Actors. An id is `<actor's name>@<log>`, valid in every process that joins the same cluster."""

    restarts = True
    unattended = False
    poll_s = 0.5

    def __init__(self, options: BackendOptions) -> None:
        """Check the options; no cluster is started or joined yet."""
        check_supported(options.profile, ("cpus",), "ray")
        self._keep = options.keep
        self._address = options.address or os.environ.get("RAY_ADDRESS")
        self._driver: Driver | None = None

    def check(self) -> None:
        """InputError where there is no cluster at the address, or it refuses this process."""
        if self._address:
            self._joined()

    def cores(self, jobs: int) -> int:
        """Equal share of the cluster's cores, whether they are in use or not."""
        return int(self._joined().call("cores", jobs, timeout_s=SUBMIT_S))

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Start an actor for each job that is not running already. InputError where they cannot be placed."""
        if self._keep and not self._address:
            raise InputError(
                "Workers cannot be left running by --backend ray without a cluster: the Ray instance of a launch ends "
                "with its command. Name a cluster (--address, RAY_ADDRESS), or use --backend local."
            )
        return list(self._joined().call("submit", list(jobs), self._keep, PLACE_S, timeout_s=SUBMIT_S))

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Pending also while an actor is being restarted; ended with the command's last exit code.

        BackendSilent while the cluster does not answer, ClusterLost once it is lost together with its jobs.
        """
        if not ids or not self._has_cluster():
            return dict.fromkeys(ids, JobState(phase="unknown"))
        return dict(self._joined().call("status", list(ids), timeout_s=STATUS_S))

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the commands, then their actors, and remove the placement groups that are empty then."""
        if not ids or not self._has_cluster():
            return
        with contextlib.suppress(ClusterLost):  # the jobs end with their cluster
            try:
                self._joined().call("cancel", list(ids), timeout_s=CANCEL_S)
            except BackendSilent:
                if self._keep:
                    raise
                self._joined().close()  # Ray ends the actors of a process that is gone

    def _has_cluster(self) -> bool:
        """Whether there is a cluster to ask: an instance of our own is not started only to ask it."""
        return bool(self._address) or self._driver is not None

    def _joined(self) -> Driver:
        """The driver; one that is lost is kept, as another one would not find its actors."""
        if self._driver is None:
            self._driver = driver(self._address)
        return self._driver


backend = RayBackend
"""Loaded by `--backend ray`."""
