"""Launch: the jobs of a run on a backend. Submits what is missing, watches it, and restarts killed workers.

Launching an existing run resumes it: only workers that are neither running nor finished are submitted.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from modtrain import plugins
from modtrain.errors import STOPPED, BackendSilent, FencedOut, ModtrainError, StopRequested, error_of, message_of
from modtrain.scheduling.backends.base import (
    Backend,
    BackendOptions,
    Job,
    JobState,
    Resources,
    ScriptBackend,
    python_path,
)
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_output import describe_exit, last_error
from modtrain.scheduling.job_record import (
    JobId,
    Record,
    backend_of,
    known_jobs,
    read_record,
    record_states,
    still_trains,
)
from modtrain.scheduling.launcher_lock import check_unmanaged_workers, claim, release
from modtrain.scheduling.recipe_check import require_sound
from modtrain.scheduling.restarts import is_quick, restart_pause_s, wants_restart
from modtrain.scheduling.run_plan import RunPlan, choose_launch, plan_run, target_of
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.run import Run

log = logging.getLogger(__name__)

FINISHED = 0
Notify = Callable[[str], None]
"""Takes one message for the user."""


@dataclass
class Member:
    """One worker of a launched run, its job, and how it ended."""

    number: int
    modules: list[str]
    id: str | None = None
    """Of its job; None before it is submitted. One that waits for its restart keeps that of the ended job."""
    backend: str = ""
    """Where the job runs: a live job of an earlier launch stays on its own backend."""
    phase: str = "pending"
    """Of the job, as its backend reported it last."""
    exit_code: int | None = None
    reason: str = ""
    """Why its job has ended, where its backend says so."""
    over: bool = False
    """Whether the worker has ended and is not restarted."""
    restarts: int = 0
    earlier_reports: dict[str, WorkerReport] = field(default_factory=dict)
    """By module the heartbeat of an earlier worker, as it was when the job was submitted."""
    _failures: int = 0
    """Quick ones in a row."""
    _started_at: float = field(default_factory=time.monotonic)
    _restart_at: float | None = None

    @property
    def name(self) -> str:
        return "+".join(self.modules)

    @property
    def is_watched(self) -> bool:
        """Whether the state of its job is of interest."""
        return self.id is not None and not self.over and self._restart_at is None

    @property
    def is_due(self) -> bool:
        return self._restart_at is not None and time.monotonic() >= self._restart_at

    def run_as(self, id: str, backend: str) -> None:
        self.id, self.backend, self.phase = id, backend, "pending"
        self.exit_code, self.over = None, False
        self._started_at, self._restart_at = time.monotonic(), None

    def end(self, exit_code: int | None) -> None:
        """Note that the worker has ended and is not restarted."""
        self.over, self.exit_code, self._restart_at = True, exit_code, None

    def restart_later(self, exit_code: int | None) -> bool:
        """Plan a restart after a pause; False where the worker died too often in a row."""
        self._failures = self._failures + 1 if is_quick(exit_code, time.monotonic() - self._started_at) else 1
        if (pause_s := restart_pause_s(self._failures)) is None:
            return False
        self.restarts += 1
        self._restart_at = time.monotonic() + pause_s
        return True


class Launch:
    """The jobs of a run on a backend."""

    def __init__(
        self,
        run: Run,
        backend: str,
        options: BackendOptions,
        *,
        backends: dict[str, Backend] | None = None,
        beside: int = 0,
        worker_options: tuple[str, ...] = (),
    ) -> None:
        """Nothing is submitted before `start`.

        Launches that run at the same time may share their `backends`, by name; `beside` is the number of jobs of all of
        them. `worker_options` are added to the command of every worker.
        """
        self.run, self.backend_name, self.options = run, backend, options
        self._beside, self._worker_options = beside, worker_options
        self._backends: dict[str, Backend] = {} if backends is None else backends
        if backend not in self._backends:
            self._backends[backend] = plugins.load("backend", backend)(options)
        self.backend = self._backends[backend]
        self.members = [Member(number, list(modules)) for number, modules in enumerate(run.spec.placement)]
        self._is_silent = False

    def start(self) -> list[Member]:
        """Submit every worker that has no live job and is not finished; the submitted ones.

        InputError where another process launches the run, or a worker runs that no known job belongs to.
        """
        self.run.jobs_path.mkdir(exist_ok=True)
        claim(self.run)
        self._adopt()
        missing = [member for member in self.members if member.id is None and not member.over]
        try:
            check_unmanaged_workers(self.run, [name for member in missing for name in member.modules])
            self.run.clear_stop()
            self._submit(missing)
        except BaseException:
            for member in self.members:  # a launch that fails to start must not end the jobs of an earlier one
                member.id = member.id if member in missing else None
            release(self.run)
            raise
        return [member for member in missing if member.id is not None]

    def scripts(self) -> list[Path]:
        """Write the job scripts of every worker and submit nothing; for batch schedulers."""
        self.run.jobs_path.mkdir(exist_ok=True)
        self._record_options()
        return cast(ScriptBackend, self.backend).scripts([self._job(member) for member in self.members])

    def watch(self, notify: Notify) -> Iterator[list[Member]]:
        """Yield the members repeatedly until all are over, and restart killed workers meanwhile."""
        asked_at = float("-inf")
        while True:
            if time.monotonic() - asked_at >= self.backend.poll_s:
                asked_at = time.monotonic()
                self._ask(notify)
            yield self.members
            if self.over:
                self.release()
                release(self.run)
                return
            time.sleep(min(self.backend.poll_s, 0.5))

    @property
    def over(self) -> bool:
        return all(member.over for member in self.members)

    def job_ids(self) -> dict[str, list[str]]:
        """The ids of the jobs that are not known to be over, by backend."""
        ids: dict[str, list[str]] = {}
        for member in self.members:
            if member.is_watched:
                ids.setdefault(member.backend, []).append(str(member.id))
        return ids

    def update(self, states: Mapping[str, Mapping[str, JobState]], notify: Notify) -> None:
        """Take the states of the jobs, by backend and id, and restart the workers that are due."""
        for member in self.members:
            if member.is_watched and (state := states.get(member.backend, {}).get(str(member.id))) is not None:
                self._update_member(member, state, notify)
        self._submit([member for member in self.members if member.is_due])
        if not (self.backend.unattended or self.over) and self.run.is_cancelled():  # by another process
            self.cancel(StopRequested.exit_code)

    def cancel(self, exit_code: int = -signal.SIGKILL) -> None:
        """End every job now. What is published stays."""
        self.release()
        for member in self.members:
            member.end(member.exit_code if member.over else exit_code)

    def release(self) -> None:
        """End what still runs, and free what the jobs held."""
        for name, backend in self._backends.items():
            backend.cancel([member.id for member in self.members if member.id and member.backend == name])

    @property
    def failed(self) -> list[Member]:
        """The workers that neither finished nor exited on request."""
        return [member for member in self.members if member.exit_code not in (FINISHED, *STOPPED)]

    def outcome(self) -> int:
        """The exit code of the whole launch: 0 finished, else that of a failed worker, else that of a stopped one."""
        stopped = [member for member in self.members if member.exit_code in STOPPED]
        code = next((member.exit_code for member in self.failed or stopped), FINISHED)
        return code if code is not None and 0 <= code < 256 else 1

    def failure(self, member: Member) -> str:
        """Why a worker failed: what it reported, else an error at the end of its job's output, else its exit code."""
        if member.exit_code == FencedOut.exit_code:  # what is reported there is the other worker's
            return "another worker trains it: another launch of this run, or a job of an earlier one, is running."
        report = self.run.read_report(member.modules[0])
        if report.trouble and report != member.earlier_reports.get(member.modules[0]):
            return report.trouble
        return last_error(self.log_path(member)) or member.reason or describe_exit(member.exit_code)

    def log_path(self, member: Member) -> Path:
        """The output of a worker's job."""
        return self.run.jobs_path / f"{member.number}.log"

    def worker_log(self, member: Member) -> Path:
        """The log of a worker; the output of its job where it did not come so far."""
        log = self.run.log_path(member.modules[0])
        return log if log.exists() else self.log_path(member)

    def _ask(self, notify: Notify) -> None:
        """Ask the backends about the jobs; that one or storage is silent is reported once, since the jobs continue."""
        try:
            states = {name: self._backends[name].status(ids) for name, ids in self.job_ids().items()}
            self.update(states, notify)
        except (OSError, ModtrainError) as error:
            if not isinstance(error, BackendSilent) and filesystem.fault_of(error) is None:
                raise
            if not self._is_silent:
                notify(message_of(error))
            self._is_silent = True
        else:
            self._is_silent = False

    def _update_member(self, member: Member, state: JobState, notify: Notify) -> None:
        member.phase = state.phase
        if state.live:
            return
        exit_code, member.reason = self._exit_code(member, state), state.reason
        if self._is_restarted(member, exit_code) and member.restart_later(exit_code):
            notify(f"{member.name} ended ({describe_exit(exit_code)}); restarting it from its newest checkpoint.")
            return
        if exit_code not in (FINISHED, FencedOut.exit_code, *STOPPED):
            self._stop_the_others(member, notify)
        member.end(exit_code)  # at last: what storage refuses before is tried again
        if member.reason:
            notify(f"{member.name} ended ({describe_exit(exit_code)}); {member.reason.rstrip('.')}.")

    def _is_restarted(self, member: Member, exit_code: int | None) -> bool:
        """Whether a worker that ended with this exit code is restarted by this launch; RunMoved, OSError."""
        obeyed = exit_code == StopRequested.exit_code  # a request that was withdrawn since
        wanted = obeyed or (wants_restart(exit_code) and not self._backends[member.backend].unattended)
        if wanted:
            self.run.check_present()
        return wanted and self.run.stop_request() is None

    def _stop_the_others(self, failed: Member, notify: Notify) -> None:
        """Have the other workers publish and exit: the failed one publishes nothing more that they could wait for."""
        is_alone = all(member.over for member in self.members if member is not failed)
        is_finished = self.run.is_finished(self.run.modules)  # only its evaluation failed
        if not is_alone and not is_finished and self.run.stop_request() is None:
            reason = self.failure(failed)
            self.run.request_stop(reason, kind="worker_failed", sender=failed.name)
            notify(f"{failed.name} failed: {reason.rstrip('.')}. The other workers publish and exit.")

    def _exit_code(self, member: Member, state: JobState) -> int | None:
        """How a worker ended; where the backend did not see it, by its checkpoints and its last report."""
        is_cancelled = self.run.is_cancelled()
        if state.exit_code is not None and (not is_cancelled or state.exit_code >= 0):
            return state.exit_code
        if self.run.is_finished(member.modules):
            return FINISHED
        reported = self.run.read_report(member.modules[0]).exit_code
        return StopRequested.exit_code if is_cancelled and reported is None else reported

    def _submit(self, members: list[Member]) -> None:
        """Submit the jobs of these workers, unless a stop was requested."""
        if not members:
            return
        self.run.check_present()
        if self.run.stop_request() is not None:
            for member in members:
                member.end(StopRequested.exit_code)
            return
        self._record_options(replace=False)  # before: a corrected command continues from what was refused
        for member in members:
            with contextlib.suppress(OSError):  # only needed to recognize the reports of the new worker
                member.earlier_reports = {module: self.run.read_report(module) for module in member.modules}
        ids = self.backend.submit([self._job(member) for member in members])
        for member, id in zip(members, ids, strict=True):
            member.run_as(id, self.backend_name)
        jobs = {member.number: JobId(member.backend, member.id) for member in self.members if member.id}
        try:
            self._record(jobs)
        except BaseException:
            self.backend.cancel(ids)  # without the record they could not be found again
            raise

    def _record_options(self, *, replace: bool = True) -> None:
        """Record the backend and its options, unless jobs are recorded that only another backend knows."""
        record = read_record(self.run)
        if not record.jobs or (replace and record.backend == self.backend_name):
            self._record(record.jobs)

    def _record(self, jobs: Mapping[int, JobId]) -> None:
        needs_launcher = not self.backend.unattended
        Record(backend=self.backend_name, options=self.options, needs_launcher=needs_launcher, jobs=jobs).write(
            self.run
        )

    def _job(self, member: Member) -> Job:
        threads = self.options.profile.cpus or self.backend.cores(len(self.members))
        unattended = ("--unattended",) if self.backend.unattended else ()  # no launcher will evaluate the run
        trusted = ("--trust-recipe",) if self.run.trusted else ()
        options = ("--modules", ",".join(member.modules), "--threads", str(threads), *trusted)
        return Job(
            name=f"{self.run.name}.{member.name}",
            command=(*worker_command("worker", self.run.path), *options, *(self._worker_options or unattended)),
            log=self.log_path(member),
            resources=Resources(
                cpus=threads, gpus=0.0 if self.run.spec.device == "cpu" else 1.0, concurrent_jobs=self._beside
            ),
            environment=python_path(),
        )

    def _adopt(self) -> None:
        """Take over the live jobs of an earlier launch, and note the workers that are finished."""
        record = known_jobs(self.run)
        for previous in record.jobs.values():
            if previous.backend not in self._backends:
                self._backends[previous.backend] = backend_of(previous, record)
        states = record_states(record, self._backends)
        for member in self.members:
            job = record.jobs.get(member.number)
            if job is not None and still_trains(self.run, member.modules[0], job, states[member.number]):
                member.id, member.backend = job.id, job.backend
            elif self.run.is_finished(member.modules):
                member.end(FINISHED)


def launch(config: Config | Run, *, notify: Notify = log.info, trusted: bool = False) -> Run:
    """Create the run of a config or resume it, train it to its end, and return it; a run is resumed as it is.

    `trusted` as of `Run`: an edited recipe is accepted, and a recipe or tracker file of another user executed.
    Raises the error of a worker that failed, and StopRequested or Preempted where the run was stopped.
    """
    target = target_of(config, trusted=trusted)
    plan = plan_run(target)
    for note in plan.notes:
        notify(note)
    started = create_launch(plan, *choose_launch(target.config, target.run), notify=notify)
    started.start()
    for _ in started.watch(notify):
        pass
    for member in started.failed:
        problem = f"{member.name} failed: {started.failure(member)} See {started.worker_log(member)}."
        raise error_of(member.exit_code)(problem)
    if code := started.outcome():
        raise error_of(code)(f"{started.run.name} was {started.run.stop_outcome()}; launch it to resume it.")
    return started.run


def create_launch(
    plan: RunPlan, backend: str, options: BackendOptions, *, submits: bool = True, notify: Notify = log.info
) -> Launch:
    """The launch of a planned run, which is created if there is none; nothing is submitted yet.

    InputError, and no folder, where the launch `submits` and the backend cannot take jobs from this machine, or the
    recipe of a new run cannot be trained.
    """
    instance: Backend = plugins.load("backend", backend)(options)
    if submits and plan.target.run is None:
        instance.check(plan.run.spec.device)
    if submits and plan.is_checked:
        require_sound(plan.run.spec, notify, metric=plan.target.config.metric)
    return Launch(plan.write(), backend, options, backends={backend: instance})


def worker_command(command: str, folder: Path) -> tuple[str, ...]:
    """The command of a job, without its options."""
    return (sys.executable, "-m", "modtrain", command, str(folder))
