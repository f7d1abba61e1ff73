"""TrialQueue: runs the trials of a sweep from this process, as many at a time as there is room for.

It is used on `local` and `ray`, and wherever results decide what comes next (TPE, pruning).
"""

from __future__ import annotations

import heapq
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from modtrain import plugins
from modtrain.errors import STOPPED, BackendSilent, Diverged, FencedOut, InputError, ModtrainError, message_of
from modtrain.scheduling.backends.base import Backend, BackendOptions, JobState
from modtrain.scheduling.launcher import Launch
from modtrain.scheduling.launcher_lock import release
from modtrain.storage import filesystem
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run import Run
from modtrain.storage.run_state import ENDED
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps.space import format_values
from modtrain.sweeps.study import State, Study
from modtrain.sweeps.sweep import CACHED_S, Sweep
from modtrain.sweeps.trial import Trial, unknown_metric, values_by_epoch
from modtrain.sweeps.trials import is_open, read_trials

LOOP_S = 0.1
STOP_CHECK_S = 1.0
"""Seconds between two checks for a stop request of the whole sweep."""

Notify = Callable[[str], None]
"""Takes a message for the user."""


class TrialQueue:
    """The trials of a sweep that still have to run, on one backend."""

    def __init__(
        self, sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int, retry_failed: bool
    ) -> None:
        """Read the trials of the sweep and start nothing yet; `at_once` of them run at the same time.

        Each running trial has a job for each of its workers.
        """
        self.sweep, self.trials, self.backend_name = sweep, read_trials(sweep), backend
        self._study = _restored_study(sweep, self.trials, retry_failed=retry_failed)
        self.waiting = deque(trial.number for trial in self.trials if is_open(trial, retry_failed=retry_failed))
        """Trials that are still to be begun or resumed."""
        self.at_once = min(at_once, sweep.spec.trials)  # not the waiting ones: each gets the same threads as before
        instance: Backend = plugins.load("backend", backend)(options)
        self._backends = {backend: instance}
        self.poll_s = instance.poll_s
        cpus = options.profile.cpus or (instance.cores(self.at_once * sweep.workers) if self.waiting else 1)
        self._options = replace(options, profile=options.profile.with_values({"cpus": cpus}, "The sweep"))
        self.running: dict[int, Launch] = {}
        self._ended: dict[int, tuple[Launch, float]] = {}
        """Trials whose jobs are over, and the time from which their folders are believed, as storage may show an older
        state for some time."""
        self.stopping: StopRequest | None = None
        """Why no further trial begins."""
        self._error: Exception | None = None
        self._is_metric_known = sweep.spec.metric is None
        """Whether a trial has shown the sweep's metric."""
        self._is_silent = False
        self._stop_checked_at = float("-inf")
        self._started_at: dict[int, float] = {}
        """When this queue began each trial; those that it resumed are left out."""
        self._durations_s: list[float] = []

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until the last trial ends; None where it is not known."""
        now = time.monotonic()
        running_s = [now - self._started_at.get(number, now) for number in self.running]
        return None if self.stopping else estimate_left_s(self._durations_s, running_s, len(self.waiting), self.at_once)

    def watch(self, notify: Notify) -> Iterator[None]:
        """Begin trials and follow them, yielding again and again until all are over or no more may begin."""
        polled_at = float("-inf")
        while True:
            self._is_stopped(every_s=STOP_CHECK_S)
            self._fill(notify)
            if time.monotonic() - polled_at >= self.poll_s:
                polled_at = time.monotonic()
                self._poll(notify)
                self._fill(notify)  # a place that has become free is not left empty
            yield
            if not self.running and not self._ended and (not self.waiting or self.stopping):
                break
            time.sleep(min(self.poll_s, LOOP_S))
        if self._error is not None:
            raise self._error

    def stop(self, request: StopRequest) -> None:
        """Begin no further trial, and ask every running one to publish and leave."""
        if self.stopping is None:
            self.stopping = request
            for number in self.waiting:
                if self.trials[number].state == "queued":
                    self.trials[number] = replace(self.trials[number], state="created")
            for number in self.running:
                self.sweep.request_stop(number, request)

    def cancel(self) -> None:
        """End every running trial now."""
        request = StopRequest(kind="cancelled", reason="cancelled", sender="modtrain sweep")
        self.stop(request)
        for number, launch in self.running.items():
            self.sweep.request_stop(number, request)
            launch.cancel()

    def _is_stopped(self, *, every_s: float) -> bool:
        """Whether no further trial may begin; the sweep's folder is asked again after so many seconds."""
        if self.stopping is None and time.monotonic() - self._stop_checked_at >= every_s:
            self._stop_checked_at = time.monotonic()
            if (request := self.sweep.stop_request()) is not None:
                self.stop(request)
        return self.stopping is not None

    def _fill(self, notify: Notify) -> None:
        """Begin trials in the free places. One that cannot begin ends the sweep after the running ones."""
        # Asked each time: the place of a cancelled trial is not for another one.
        while self.waiting and len(self.running) < self.at_once and not self._is_stopped(every_s=0.0):
            try:
                self._begin(self.waiting[0], notify)
            except (ModtrainError, OSError) as error:
                self._error, self.stopping = (
                    error,
                    StopRequest(kind="ended", reason=message_of(error), sender="modtrain sweep"),
                )
                return
            self.waiting.popleft()

    def _begin(self, number: int, notify: Notify) -> None:
        """Begin or resume a trial, but not one that is damaged or launched by another process."""
        try:
            run = self.sweep.run(number)
        except InputError as error:  # the other trials can still run
            notify(f"trial {number} is left out: {error}")
            return
        if run is not None and (launcher := launcher_pid(run.path, strict=True)) not in (None, os.getpid()):
            notify(f"trial {number} is left out: process {launcher} has launched it already")
            return
        is_new = run is None
        if run is None:
            run = self.sweep.begin(number, self._study.ask(number))
        self.trials[number] = replace(self.trials[number], values=(run.spec.trial or {})["values"], state="running")
        launch = Launch(
            run,
            self.backend_name,
            self._options,
            backends=self._backends,
            beside=self.at_once * self.sweep.workers,
            worker_options=self.sweep.worker_options,
        )
        launch.start()
        self.running[number] = launch
        if is_new:
            self._started_at[number] = time.monotonic()
        notify(f"trial {number} {'begins' if is_new else 'resumes'}: {format_values(self.trials[number].values)}")

    def _poll(self, notify: Notify) -> None:
        """Ask each backend once about the jobs of all trials."""
        ids: dict[str, list[str]] = {}
        for launch in self.running.values():
            for name, own in launch.job_ids().items():
                ids.setdefault(name, []).extend(own)
        try:
            states = {name: self._backends[name].status(own) for name, own in ids.items()}
        except BackendSilent as error:
            self._note_silence(error, notify)
            return
        try:
            self._update(states, notify)
        except Exception as error:
            if filesystem.fault_of(error) is None:
                raise
            self._note_silence(error, notify)
        else:
            self._is_silent = False

    def _note_silence(self, error: Exception, notify: Notify) -> None:
        """Report once that a backend or storage does not answer: the jobs continue meanwhile."""
        if not self._is_silent:
            notify(str(error))
        self._is_silent = True

    def _update(self, states: Mapping[str, Mapping[str, JobState]], notify: Notify) -> None:
        """Take the states of all jobs, by backend and id, and finish the trials that are over."""
        for number, launch in list(self.running.items()):
            launch.update(states, _with_number(number, notify))
            self._report(number, launch, notify)
            if launch.over:
                launch.release()
                self._ended[number] = self.running.pop(number), time.monotonic() + CACHED_S
        for number, (launch, believed_from) in list(self._ended.items()):
            trial = self.sweep.trial(number, "ended")
            if time.monotonic() >= believed_from or _is_complete(trial, launch, self.sweep.spec.metric):
                self._finish(trial, launch, notify)
                del self._ended[number]

    def _report(self, number: int, launch: Launch, notify: Notify) -> None:
        """Report the values of a running trial to the study, and prune the trial where the study says so."""
        spec = self.sweep.spec
        self._check_metric(launch.run)
        if not spec.metric or not spec.prune:
            return
        for epoch, value in sorted(values_by_epoch(launch.run, spec.metric).items()):
            self._study.report(number, epoch, value)
        reason = self._study.should_prune(number)
        if reason and launch.run.stop_request() is None and not launch.run.is_finished(launch.run.modules):
            launch.run.request_stop(reason, kind="pruned", sender="modtrain sweep")
            notify(f"trial {number} is pruned: {reason}")

    def _check_metric(self, run: Run) -> None:
        """End the sweep where a trial measures something, but not the sweep's metric."""
        metric = self.sweep.spec.metric
        if self._is_metric_known or metric is None or self.stopping is not None:
            return
        evaluations = read_evaluations(run.evaluations_path)
        if (problem := unknown_metric(run, metric, evaluations[-1] if evaluations else None)) is not None:
            needs_metric = self.sweep.spec.sampler == "tpe" or self.sweep.spec.prune is not None
            next_step = "begin another sweep" if needs_metric else f"resume with `modtrain sweep {self.sweep.path}`"
            self._error = InputError(f"{problem} Give --metric, and {next_step}.")
            self.stop(StopRequest(kind="ended", reason=problem, sender="modtrain sweep"))
        self._is_metric_known = bool(values_by_epoch(run, metric))

    def _finish(self, trial: Trial, launch: Launch, notify: Notify) -> None:
        """Record how a trial ended."""
        failed = [m for m in launch.members if m.exit_code not in (0, FencedOut.exit_code, *STOPPED)]
        if trial.state not in ENDED and failed and launch.run.stop_request() is None:
            # The worker died before it could report this; the request makes it known to later readers.
            message = launch.failure(failed[0])
            launch.run.request_stop(message, kind="worker_failed", sender=failed[0].name)
            trial = self.sweep.trial(trial.number, "ended")
        self.trials[trial.number] = trial
        release(launch.run)
        if trial.state in ENDED and trial.number in self._started_at:
            self._durations_s.append(time.monotonic() - self._started_at[trial.number])
        self._study.tell(trial.number, *_study_end(trial))
        notify(end_message(trial, self.sweep.spec.metric))


def estimate_left_s(
    durations_s: Sequence[float], running_s: Iterable[float], waiting: int, at_once: int
) -> float | None:
    """Estimated seconds until all trials have ended, if each takes the median duration of those that have.

    `running_s` are the seconds that the running trials have taken so far. None where no trial has ended yet, or where
    the running ones take longer than the median and nothing else is left.
    """
    if not durations_s:
        return None
    median_s = statistics.median(durations_s)
    free_at = sorted(max(0.0, median_s - seconds) for seconds in running_s)
    free_at = [0.0] * (at_once - len(free_at)) + free_at
    for _ in range(waiting):
        heapq.heapreplace(free_at, free_at[0] + median_s)
    return max(free_at, default=0.0) or None


def end_message(trial: Trial, metric: str | None) -> str:
    """How a trial ended, in one line."""
    if trial.state != "finished":
        after = "" if trial.epoch is None else f" after epoch {trial.epoch}"
        return f"trial {trial.number} {trial.state}{after}: {trial.why or 'stop requested'}"
    detail = f"{metric} {trial.result:.4g}" if trial.result is not None else trial.why
    return f"trial {trial.number} finished" + (f": {detail}" if detail else "")


def _is_complete(trial: Trial, launch: Launch, metric: str | None) -> bool:
    """Whether the folder shows the end that the exit codes imply."""
    codes = {member.exit_code for member in launch.members}
    if codes == {0}:
        return trial.state == "finished" and (metric is None or bool(trial.metrics) or trial.result is not None)
    return trial.state == "failed" or Diverged.exit_code not in codes


def _restored_study(sweep: Sweep, trials: list[Trial], *, retry_failed: bool) -> Study:
    """The study as it was when the previous process of the sweep ended."""
    spec = sweep.spec
    study = Study(sweep.space, sampler=spec.sampler, seed=spec.seed, maximize=spec.maximize, pruner=spec.prune)

    def reports(number: int) -> dict[int, float] | None:
        """None for a trial that has not begun, or is damaged."""
        run = sweep.intact_run(number)
        return None if run is None else values_by_epoch(run, spec.metric) if spec.prune and spec.metric else {}

    for trial, own in zip(trials, sweep.map_trials(reports), strict=True):
        if own is not None:
            result, state = (None, "running") if is_open(trial, retry_failed=retry_failed) else _study_end(trial)
            study.remember(trial.number, trial.values, reports=own, result=result, state=state)
    return study


def _study_end(trial: Trial) -> tuple[float | None, State]:
    """Result and state for the study: that training diverges at a point is a result, which TPE learns from."""
    if trial.state == "failed":
        return math.nan, "finished" if trial.exit_code == Diverged.exit_code else "failed"
    return trial.result, trial.state if trial.state in ("finished", "pruned") else "running"


def _with_number(number: int, notify: Notify) -> Notify:
    return lambda message: notify(f"trial {number}: {message}")
