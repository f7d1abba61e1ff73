"""launch: place the modules, submit what has no live job, watch, start killed workers again.

Launching an existing run again resumes it: only what is not running and not finished is submitted. Deliberately not
here: how a command is run (`backends/`), training (`worker.py`, which is never imported here), and the terminal
(`cli/`).
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from modtrain import plugins
from modtrain.errors import STOPPED, BackendSilent, FencedOut, ModtrainError, StopRequested
from modtrain.scheduling.backends.base import (
    Backend,
    BackendOptions,
    Job,
    JobState,
    Resources,
    ScriptBackend,
)
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_record import JobId, Record, backend_of, read_record, still_trains
from modtrain.scheduling.launcher_lock import check_unmanaged_workers, claim
from modtrain.scheduling.new_run import prepare
from modtrain.scheduling.python_path import python_path
from modtrain.scheduling.restarts import RestartBackoff, wants_restart
from modtrain.scheduling.resume import choose_backend, choose_options, previous_launch
from modtrain.storage import filesystem
from modtrain.storage.run import Run

log = logging.getLogger(__name__)

FINISHED = 0


@dataclass
class Member:
    """One worker of a launched run and its job."""

    number: int
    modules: list[str]
    id: str | None = None
    backend: str = ""
    """Where its job runs: a live job of an earlier launch stays where it is."""
    phase: str = "pending"
    """What its backend said of the job last."""
    exit_code: int | None = None
    over: bool = False
    restarts: int = 0
    begun: float = field(default_factory=time.monotonic)
    again_at: float | None = None
    backoff: RestartBackoff = field(default_factory=RestartBackoff)

    @property
    def name(self) -> str:
        """For people: the modules."""
        return "+".join(self.modules)


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
        """Nothing is started yet: `start` does.

        Several launches may share their `backends`, by name, and run at the same time: `beside` is how many jobs of all
        of them there are. `worker_options` are for every worker.
        """
        self.run, self.backend_name, self.options = run, backend, options
        self._beside, self._worker_options = beside, worker_options
        self._backends: dict[str, Backend] = {} if backends is None else backends
        if backend not in self._backends:
            self._backends[backend] = plugins.load("backend", backend)(options)
        self.backend = self._backends[backend]
        self.members = [Member(number, list(modules)) for number, modules in enumerate(run.spec.placement)]

    def start(self) -> list[Member]:
        """Submit every worker that has no live job and is not finished; those that were submitted.

        InputError where another launch, or somebody by hand, runs a worker that cannot be watched from here.
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
            for member in self.members:  # a launch that fails to start ends no job of an earlier one
                member.id = member.id if member in missing else None
            raise
        return [member for member in missing if member.id is not None]

    def scripts(self) -> list[Path]:
        """Write the job scripts of every worker and submit nothing: for schedulers."""
        self.run.jobs_path.mkdir(exist_ok=True)
        self._note_how()
        return cast(ScriptBackend, self.backend).scripts([self._job(member) for member in self.members])

    def watch(self, tell: Callable[[str], None]) -> Iterator[list[Member]]:
        """Again and again the members, until all are over; killed workers are started again meanwhile."""
        asked, silent = float("-inf"), False
        while True:
            if time.monotonic() - asked >= self.backend.poll_s:
                asked = time.monotonic()
                try:
                    self.hear({name: self._backends[name].status(ids) for name, ids in self.asks().items()}, tell)
                    silent = False
                except BackendSilent as error:
                    if not silent:  # once: the jobs go on meanwhile
                        tell(str(error))
                    silent = True
            yield self.members
            if self.over:
                self.release()
                return
            time.sleep(min(self.backend.poll_s, 0.5))

    @property
    def over(self) -> bool:
        """Whether every worker is."""
        return all(member.over for member in self.members)

    def asks(self) -> dict[str, list[str]]:
        """The ids of the jobs that are to be asked about, by backend."""
        found: dict[str, list[str]] = {}
        for member in self.members:
            if member.id is not None and not member.over:
                found.setdefault(member.backend, []).append(member.id)
        return found

    def hear(self, told: Mapping[str, Mapping[str, JobState]], tell: Callable[[str], None]) -> None:
        """Take the answers, by backend and id, and start again what has to be."""
        for member in self.members:
            if member.id is not None and not member.over and member.id in told.get(member.backend, {}):
                self._look_at(member, told[member.backend][member.id], tell)
        self._submit([m for m in self.members if m.again_at is not None and time.monotonic() >= m.again_at])

    def cancel(self) -> None:
        """End every job now; what is published stays."""
        self.release()
        for member in self.members:
            if not member.over:
                member.over, member.exit_code = True, -signal.SIGKILL

    def outcome(self) -> int:
        """The exit code of the whole: 0 finished, else the worst reason of a worker."""
        codes = [1 if member.exit_code is None else member.exit_code for member in self.members]
        failed = [code for code in codes if code != FINISHED and code not in STOPPED]
        stopped = [code for code in codes if code in STOPPED]
        code = (failed or stopped or [FINISHED])[0]
        return code if 0 <= code < 256 else 1

    def trouble(self, member: Member) -> str:
        """What a worker said last of its end, else how it ended."""
        return self.run.read_report(member.modules[0]).trouble or _said(member.exit_code)

    def last_line(self, member: Member) -> str | None:
        """The last line of a job's output; None where there is none."""
        lines = [line for line in filesystem.read_lines(self.log_path(member)) if line.strip()]
        return lines[-1].removeprefix("modtrain: ") if lines else None

    def log_path(self, member: Member) -> Path:
        """The output of a worker's job."""
        return self.run.jobs_path / f"{member.number}.log"

    def _look_at(self, member: Member, state: JobState, tell: Callable[[str], None]) -> None:
        member.phase = state.phase
        if state.live:
            return
        member.exit_code = self._exit_code(member, state)
        pause_s = self._pause_s(member, self._backends[member.backend])
        if pause_s is not None:
            member.restarts += 1
            member.id, member.again_at = None, time.monotonic() + pause_s
            tell(f"{member.name} was ended ({_said(member.exit_code)}); starting it again from its newest checkpoint.")
            return
        member.over = True
        if member.exit_code not in (FINISHED, FencedOut.exit_code, *STOPPED):
            self._stop_the_others(member, tell)

    def _pause_s(self, member: Member, backend: Backend) -> float | None:
        """Seconds until a worker that has ended is started again; None where it is not."""
        obeyed = member.exit_code == StopRequested.exit_code  # a request that was taken back since
        again = obeyed or (wants_restart(member.exit_code) and not backend.restarts)
        if not again or self.run.stop_request() is not None:
            return None
        return member.backoff.pause_s(time.monotonic() - member.begun)

    def _stop_the_others(self, failed: Member, tell: Callable[[str], None]) -> None:
        """Nobody should wait for a peer that will never publish again: the others publish and leave."""
        if any(not member.over for member in self.members) and self.run.stop_request() is None:
            trouble = self.trouble(failed)
            self.run.request_stop(trouble, kind="worker_failed", sender=failed.name)
            tell(f"{failed.name} failed ({trouble}); the others publish and leave.")

    def _exit_code(self, member: Member, state: JobState) -> int | None:
        """How a worker ended; its checkpoints and its last word say it where its backend did not see it."""
        stop = self.run.stop_request()
        cancelled = StopRequested.exit_code if stop is not None and stop.kind == "cancelled" else None
        if state.exit_code is not None and (cancelled is None or state.exit_code >= 0):
            return state.exit_code
        if self.run.is_finished(member.modules):
            return FINISHED
        reported = self.run.read_report(member.modules[0]).exit_code
        return cancelled if reported is None else reported

    def _submit(self, members: list[Member]) -> None:
        """Start workers, but not against a stop request."""
        if not members:
            return
        if self.run.stop_request() is not None:
            for member in members:
                member.over, member.again_at, member.exit_code = True, None, StopRequested.exit_code
            return
        self._note_how(anew=False)  # first: what is refused now is gone on with in the same way
        ids = self.backend.submit([self._job(member) for member in members])
        for member, id in zip(members, ids, strict=True):
            member.id, member.backend, member.exit_code, member.over = id, self.backend_name, None, False
            member.begun, member.again_at = time.monotonic(), None
        jobs = {member.number: JobId(member.backend, member.id) for member in self.members if member.id}
        try:
            Record(backend=self.backend_name, options=self.options, jobs=jobs).write(self.run)
        except OSError:
            self.backend.cancel(ids)  # nobody would find them again
            raise

    def _note_how(self, *, anew: bool = True) -> None:
        """Write down by which backend and with which options; jobs of another one must still be found."""
        if not (last := read_record(self.run)).jobs or (anew and last.backend == self.backend_name):
            Record(backend=self.backend_name, options=self.options, jobs=last.jobs).write(self.run)

    def _job(self, member: Member) -> Job:
        threads = self.options.profile.cpus or self.backend.cores(len(self.members))
        alone = ("--unattended",) if self.backend.unattended else ()  # nobody else may be there at the run's end
        options = ("--modules", ",".join(member.modules), "--threads", str(threads))
        return Job(
            name=f"{self.run.name}.{member.name}",
            command=(*worker_command("worker", self.run.path), *options, *(self._worker_options or alone)),
            log=self.log_path(member),
            resources=Resources(
                cpus=threads, gpus=0.0 if self.run.spec.device == "cpu" else 1.0, concurrent_jobs=self._beside
            ),
            environment=python_path(),
        )

    def _adopt(self) -> None:
        """Take over the jobs of an earlier launch that still live; a finished worker is not started again."""
        record = read_record(self.run)
        for job in record.jobs.values():
            if job.backend not in self._backends:
                self._backends[job.backend] = backend_of(job, record)
        there = {m.number: record.jobs[m.number] for m in self.members if m.number in record.jobs}
        told = {
            name: self._backends[name].status([j.id for j in there.values() if j.backend == name])
            for name in {job.backend for job in there.values()}
        }
        for member in self.members:
            found = there.get(member.number)
            if found and still_trains(self.run, member.modules[0], found, told[found.backend][found.id]):
                member.id, member.backend = found.id, found.backend
            elif self.run.is_finished(member.modules):
                member.over, member.exit_code = True, FINISHED

    def release(self) -> None:
        """End what still lives and free what the jobs held."""
        for name, backend in self._backends.items():
            backend.cancel([member.id for member in self.members if member.id and member.backend == name])


def launch(config: Config, *, tell: Callable[[str], None] = log.info) -> Run:
    """Create the run, or go on with it, train it to its end, and return it. ModtrainError where a worker failed."""
    previous = previous_launch(run := prepare(config))
    backend = choose_backend(config, previous)
    started = Launch(run, backend, choose_options(config, backend, previous))
    started.start()
    for _ in started.watch(tell):
        pass
    failed = [m for m in started.members if m.exit_code not in (FINISHED, *STOPPED)]
    if failed:
        worker_log = run.log_path(failed[0].modules[0])
        raise ModtrainError(f"{failed[0].name} failed: {started.trouble(failed[0])} See {worker_log}.")
    return run


def worker_command(command: str, folder: Path) -> tuple[str, ...]:
    """What a job runs, but for its options."""
    return (sys.executable, "-m", "modtrain", command, str(folder))


def _said(exit_code: int | None) -> str:
    if exit_code is None:
        return "nobody saw how"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
