"""Queue: a sweep's trials as launches, as many at a time as there is room for, from one process.

It is how sweeps run on `local` and `ray`, and wherever results decide what comes next (TPE, pruning). Deliberately not
here: arrays of a scheduler (`sweep.py`), which need nobody to watch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from modtrain import plugins
from modtrain.errors import STOPPED, BackendSilent, Diverged, FencedOut, InputError, ModtrainError
from modtrain.scheduling.backends.base import Backend, BackendOptions
from modtrain.scheduling.launcher import Launch
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run import Run
from modtrain.storage.run_state import ENDED
from modtrain.storage.stop_request import StopRequest, write_stop_request
from modtrain.sweeps.study import Study
from modtrain.sweeps.sweep import SEEN_S, Sweep
from modtrain.sweeps.trial import Trial, unknown_metric, values_by_epoch

LOOP_S = 0.1
OBEY_S = 1.0
"""Seconds between two looks for a stop of the whole sweep."""
READERS = 16
"""Trials that are read at the same time: shared storage answers slowly, but many at once."""


class Queue:
    """The trials of a sweep that still have to run, on one backend."""

    def __init__(
        self,
        sweep: Sweep,
        trials: Sequence[Trial],
        backend: str,
        options: BackendOptions,
        *,
        at_once: int,
        retry_failed: bool = False,
    ) -> None:
        """Nothing is started yet. `trials` are all of the sweep, as they are now.

        `at_once` of them run at the same time, each with a job for each of its workers.
        """
        self.sweep, self.trials, self.backend_name = sweep, list(trials), backend
        self._study = _remembered(sweep, self.trials, retry_failed=retry_failed)
        self._left = [trial.number for trial in self.trials if _runs(trial, retry_failed=retry_failed)]
        self.at_once = min(at_once, sweep.spec.trials)  # not what is left: each is to have its threads as before
        made: Backend = plugins.load("backend", backend)(options)
        self._backends = {backend: made}
        self.poll_s = made.poll_s
        share = options.profile.cpus or (made.cores(self.at_once * sweep.workers) if self._left else 1)
        self._options = replace(options, profile=options.profile.with_values({"cpus": share}, "The sweep"))
        self.running: dict[int, Launch] = {}
        self._ended: dict[int, tuple[Launch, float]] = {}
        """Trials that are over, each with when to believe what can be seen of it: shared storage may show it late."""
        self.stopping: StopRequest | None = None
        """Why no further trial begins."""
        self._failure: Exception | None = None
        self._measured = sweep.spec.metric is None
        """Whether a trial was seen to have the sweep's metric."""
        self._silent = False
        self._looked = float("-inf")

    @property
    def left(self) -> int:
        """Trials that are still to begin, or to go on."""
        return len(self._left)

    def watch(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Begin trials, follow them, and yield again and again, until all are over or nothing more may begin."""
        asked = float("-inf")
        while True:
            self._obey()
            self._begin(tell)
            if time.monotonic() - asked >= self.poll_s:
                asked = time.monotonic()
                self._ask(tell)
                self._begin(tell)  # a place that is free now is not left empty
            yield
            if not self.running and not self._ended and (not self._left or self.stopping):
                break
            time.sleep(min(self.poll_s, LOOP_S))
        if self._failure is not None:
            raise self._failure

    def stop(self, request: StopRequest) -> None:
        """Begin nothing more, and ask every running trial to publish and leave."""
        if self.stopping is None:
            self.stopping = request
            for launch in self.running.values():
                if launch.run.stop_request() is None:  # a pruned trial stays pruned
                    write_stop_request(launch.run.path, request)

    def cancel(self) -> None:
        """End every running trial now."""
        self.stop(StopRequest(kind="cancelled", reason="cancelled", sender="modtrain sweep"))
        for launch in self.running.values():
            launch.cancel()

    def _obey(self, *, after_s: float = OBEY_S) -> None:
        if time.monotonic() - self._looked >= after_s:
            self._looked = time.monotonic()
            if (request := self.sweep.stop_request()) is not None:
                self.stop(request)

    def _begin(self, tell: Callable[[str], None]) -> None:
        """Fill the free places. A trial that cannot begin ends the sweep, once those that run are through."""
        while self._left and len(self.running) < self.at_once and self.stopping is None:
            number = self._left[0]
            self._obey(after_s=0.0)  # a trial that was cancelled just now makes no room for another one
            if self.stopping is not None:
                return
            try:
                run = self.sweep.run(number)
            except InputError as error:  # damaged: the other trials are worth going on
                tell(f"trial {number} is left out: {error}")
                self._left.pop(0)
                continue
            if run is not None and (by := launcher_pid(run.path)) not in (None, os.getpid()):
                tell(f"trial {number} is launched by process {by} already and left to it")
            else:
                try:
                    self.running[number] = self._launch(number, run)
                except (ModtrainError, OSError) as error:
                    self._failure, self.stopping = error, _ended(str(error))
                    return
                tell(f"trial {number} {'goes on' if run else 'begins'}: {said(self.trials[number].values)}")
            self._left.pop(0)

    def _launch(self, number: int, begun: Run | None) -> Launch:
        """Submit a trial, or take over what lives of it."""
        run = self.sweep.begin(number, self._study.ask(number)) if begun is None else begun
        self.trials[number] = replace(self.trials[number], values=(run.spec.trial or {})["values"], state="running")
        launch = Launch(
            run,
            self.backend_name,
            self._options,
            backends=self._backends,
            beside=self.at_once * self.sweep.workers,
            worker_options=worker_options(self.sweep),
        )
        launch.start()
        return launch

    def _ask(self, tell: Callable[[str], None]) -> None:
        """One question to each backend for the jobs of all trials."""
        ids: dict[str, list[str]] = {}
        for launch in self.running.values():
            for name, its in launch.job_ids().items():
                ids.setdefault(name, []).extend(its)
        try:
            told = {name: self._backends[name].status(its) for name, its in ids.items()}
        except BackendSilent as error:
            if not self._silent:  # once: the jobs go on meanwhile
                tell(str(error))
            self._silent = True
            return
        self._silent = False
        for number, launch in list(self.running.items()):
            launch.update(told, _about(number, tell))
            self._judge(number, launch, tell)
            if launch.over:
                launch.release()
                self._ended[number] = self.running.pop(number), time.monotonic() + SEEN_S
        for number, (launch, until) in list(self._ended.items()):
            trial = self.sweep.trial(number, "ended")
            if time.monotonic() >= until or _is_all(trial, launch, self.sweep.spec.metric):
                del self._ended[number]
                self._over(trial, launch, tell)

    def _judge(self, number: int, launch: Launch, tell: Callable[[str], None]) -> None:
        """Tell the study what the trial has reached; one that is not worth going on with is asked to leave."""
        spec = self.sweep.spec
        self._check_metric(launch.run)
        if not spec.metric or not spec.prune:
            return
        for epoch, value in sorted(values_by_epoch(launch.run, spec.metric).items()):
            self._study.report(number, epoch, value)
        reason = self._study.should_prune(number)
        if reason and launch.run.stop_request() is None and not launch.run.is_finished(launch.run.modules):
            launch.run.request_stop(reason, kind="pruned", sender="modtrain sweep")
            tell(f"trial {number} is pruned: {reason}")

    def _check_metric(self, run: Run) -> None:
        """End the sweep where what is measured turns out not to be what it wants to know."""
        metric = self.sweep.spec.metric
        if self._measured or metric is None or self.stopping is not None:
            return
        if (sentence := unknown_metric(run, metric)) is not None:
            how = "begin another sweep" if self._needs_metric else f"go on with `modtrain sweep {self.sweep.path}`"
            self._failure = InputError(f"{sentence} Give --metric, and {how}.")
            self.stop(_ended(sentence))
        self._measured = bool(values_by_epoch(run, metric))

    @property
    def _needs_metric(self) -> bool:
        return self.sweep.spec.sampler == "tpe" or self.sweep.spec.prune is not None

    def _over(self, trial: Trial, launch: Launch, tell: Callable[[str], None]) -> None:
        broken = [m for m in launch.members if m.exit_code not in (0, FencedOut.exit_code, *STOPPED)]
        if trial.state not in ENDED and broken and launch.run.stop_request() is None:
            # The worker did not come so far as to report it, and later readers are to know.
            reason = launch.failure(broken[0])
            launch.run.request_stop(reason, kind="worker_failed", sender=broken[0].name)
            trial = self.sweep.trial(trial.number, "ended")
        self.trials[trial.number] = trial
        if (state := told(trial)) != "running":
            self._study.tell(trial.number, _result(trial), state)  # type: ignore[arg-type]
        tell(ending(trial, self.sweep.spec.metric))


def _is_all(trial: Trial, launch: Launch, metric: str | None) -> bool:
    """Whether the folder shows what the exit codes say."""
    codes = {member.exit_code for member in launch.members}
    if codes == {0}:
        return trial.state == "finished" and (metric is None or bool(trial.metrics) or trial.result is not None)
    return trial.state == "failed" or Diverged.exit_code not in codes


def told(trial: Trial) -> str:
    """The state of a trial for a study. That a place is so bad that training diverges there, TPE may know."""
    if trial.state == "failed":
        return "finished" if trial.exit_code == Diverged.exit_code else "failed"
    return trial.state if trial.state in ENDED else "running"


def ending(trial: Trial, metric: str | None) -> str:
    """How a trial ended, in one line."""
    reached = f": {metric} {trial.result:.4g}" if trial.result is not None else ""
    if trial.state == "finished":
        return f"trial {trial.number} finished{reached or (': ' + trial.why if trial.why else '')}"
    return f"trial {trial.number} {trial.state} after epoch {trial.epoch}: {trial.why or 'asked to leave'}"


def said(values: Mapping[str, Any]) -> str:
    """A trial's values, in a line."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def shown(value: Any) -> str:
    """A value as a person types it: null, true, 0.1, [1, 2], text."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def worker_options(sweep: Sweep) -> tuple[str, ...]:
    """What every worker of a trial is told besides."""
    every = sweep.spec.evaluate_every
    return ("--unattended", *(("--evaluate-every", str(every)) if every else ()))


def _runs(trial: Trial, *, retry_failed: bool) -> bool:
    return trial.state not in ENDED or (retry_failed and trial.state == "failed")


def _remembered(sweep: Sweep, trials: list[Trial], *, retry_failed: bool) -> Study:
    """The study as it was when the process before this one ended."""
    spec = sweep.spec
    study = Study(sweep.space, sampler=spec.sampler, seed=spec.seed, maximize=spec.maximize, pruner=spec.prune)

    def reported(trial: Trial) -> dict[int, float] | None:
        """None for a trial that has not begun, or is damaged."""
        run = sweep.sound_run(trial.number)
        return None if run is None else values_by_epoch(run, spec.metric) if spec.prune and spec.metric else {}

    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(reported, trials))
    for trial, its in zip(trials, found, strict=True):
        if its is not None:
            again = _runs(trial, retry_failed=retry_failed)
            state = "running" if again else told(trial)
            study.remember(trial.number, trial.values, reports=its, result=_result(trial), state=state)  # type: ignore[arg-type]
    return study


def _result(trial: Trial) -> float | None:
    """What a study is told."""
    return float("nan") if trial.state == "failed" else trial.result


def _ended(reason: str) -> StopRequest:
    return StopRequest(kind="ended", reason=reason, sender="modtrain sweep")


def _about(number: int, tell: Callable[[str], None]) -> Callable[[str], None]:
    return lambda sentence: tell(f"trial {number}: {sentence}")
