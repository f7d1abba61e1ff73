"""Queue: a sweep's trials as launches, as many at a time as there is room for, from one process.

It is how sweeps run on `local` and `ray`, and wherever results decide what comes next (TPE, pruning). Deliberately not
here: arrays of a scheduler (`sweep.py`), which need nobody to watch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from modtrain import plugins
from modtrain.backends.base import Backend, BackendOptions
from modtrain.errors import BackendSilent, Diverged, ModtrainError, StopRequested
from modtrain.launch import STOPPED, Launch
from modtrain.study import Study
from modtrain.trials import PRUNED, Sweep, Trial, reports

STUDY_STATE = {"finished": "finished", "pruned": "pruned", "failed": "failed"}
"""Trials in any other state are still going on, or will."""


class Queue:
    """The trials of a sweep that still have to run, on one backend."""

    def __init__(
        self, sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int, retry_failed: bool = False
    ) -> None:
        """`at_once` trials run at the same time, each with a job for each of its workers. Nothing is started yet."""
        self.sweep, self.at_once, self.backend_name = sweep, at_once, backend
        made: Backend = plugins.load("backend", backend)(options)
        self._backends = {backend: made}
        self.poll_s = made.poll_s
        share = options.profile.cpus or made.cores(at_once * sweep.workers)
        self._options = replace(options, profile=options.profile.with_values({"cpus": share}, "The sweep"))
        self.trials = [sweep.trial(number) for number in range(sweep.spec.trials)]
        self.running: dict[int, Launch] = {}
        self.stopping: str | None = None
        """Why no further trial begins."""
        self._failure: ModtrainError | None = None
        wanted = ("waiting", "stopped", "queued", "running", *(["failed"] if retry_failed else []))
        self._left = [trial.number for trial in self.trials if trial.state in wanted]
        self._study = self._remembering(sweep)

    def _remembering(self, sweep: Sweep) -> Study:
        spec = sweep.spec
        study = Study(sweep.space, sampler=spec.sampler, seed=spec.seed, maximize=spec.maximize, pruner=spec.prune)
        for trial in self.trials:
            if trial.state != "waiting" and (run := sweep.run(trial.number)) is not None:
                again = trial.number in self._left
                study.remember(
                    trial.number,
                    trial.values,
                    reports=reports(run, spec.metric) if spec.metric else {},
                    result=trial.result,
                    state="running" if again else STUDY_STATE[trial.state],  # type: ignore[arg-type]
                )
        return study

    @property
    def left(self) -> int:
        """Trials that have not begun."""
        return len(self._left)

    def watch(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Begin trials, follow them, and yield again and again, until all are over or nothing more may begin."""
        asked = float("-inf")
        while True:
            self._obey()
            self._begin(tell)
            if time.monotonic() - asked >= self.poll_s or not self.running:
                asked = time.monotonic()
                self._ask(tell)
            yield
            if not self.running and (not self._left or self.stopping):
                break
            time.sleep(min(self.poll_s, 0.2))
        if self._failure is not None:
            raise self._failure

    def stop(self, reason: str) -> None:
        """Begin nothing more, and ask every running trial to publish and leave."""
        if self.stopping is None:
            self.stopping = reason
            for launch in self.running.values():
                launch.run.request_stop(reason)

    def cancel(self) -> None:
        """End every running trial now."""
        self.stopping = self.stopping or "cancelled"
        for launch in self.running.values():
            launch.cancel()

    def _obey(self) -> None:
        try:
            self.sweep.check_stop()
        except StopRequested as error:
            self.stop(str(error))

    def _begin(self, tell: Callable[[str], None]) -> None:
        """Fill the free places. A trial that cannot begin ends the sweep, once those that run are through."""
        while self._left and len(self.running) < self.at_once and self.stopping is None:
            number = self._left.pop(0)
            try:
                self.running[number] = self._launch(number)
            except ModtrainError as error:
                self._failure, self.stopping = error, str(error)
                return
            tell(f"trial {number} begins: {said(self.trials[number].values)}")

    def _launch(self, number: int) -> Launch:
        """Submit a trial, or take over what lives of it."""
        known = self.trials[number].state != "waiting"
        run = self.sweep.begin(number, None if known else self._study.ask(number))
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
            for name, its in launch.asks().items():
                ids.setdefault(name, []).extend(its)
        try:
            told = {name: self._backends[name].status(its) for name, its in ids.items()}
        except BackendSilent as error:
            tell(str(error))
            return
        for number, launch in list(self.running.items()):
            launch.hear(told, _about(number, tell))
            self._judge(number, launch, tell)
            if launch.over:
                launch.release()
                del self.running[number]
                self._over(number, launch, tell)

    def _judge(self, number: int, launch: Launch, tell: Callable[[str], None]) -> None:
        """Tell the study what the trial has reached; one that is not worth going on with is asked to leave."""
        spec = self.sweep.spec
        if not spec.metric or not spec.prune:
            return
        for epoch, value in sorted(reports(launch.run, spec.metric).items()):
            self._study.report(number, epoch, value)
        reason = self._study.should_prune(number)
        if reason and launch.run.stop_requested() is None and not launch.run.is_finished(launch.run.modules):
            launch.run.request_stop(PRUNED + reason)
            tell(f"trial {number} is pruned: {reason}")

    def _over(self, number: int, launch: Launch, tell: Callable[[str], None]) -> None:
        trial = self.trials[number] = self.sweep.trial(number)
        if trial.state in ("stopped", "running", "queued") and self.stopping is None:
            reasons = [launch.trouble(m) for m in launch.members if m.exit_code not in (0, *STOPPED)]
            trial = self.trials[number] = replace(trial, state="failed", why=next(iter(reasons), trial.why))
        if trial.state == "failed" and launch.outcome() == Diverged.exit_code:
            self._study.tell(number, float("nan"), "finished")  # the place is bad, and TPE may know it
        elif trial.state in STUDY_STATE:
            self._study.tell(number, trial.result, STUDY_STATE[trial.state])  # type: ignore[arg-type]
        tell(ending(trial, self.sweep.spec.metric))


def ending(trial: Trial, metric: str | None) -> str:
    """How a trial ended, in one line."""
    reached = f": {metric} {trial.result:.4g}" if trial.result is not None else ""
    if trial.state == "finished":
        return f"trial {trial.number} finished{reached or (': ' + trial.why if trial.why else '')}"
    return f"trial {trial.number} {trial.state} after epoch {trial.epoch}: {trial.why or 'asked to leave'}"


def said(values: object) -> str:
    """A trial's values, as a person types them."""
    return ", ".join(f"{name}={value}" for name, value in dict(values).items()) if values else ""  # type: ignore[call-overload]


def worker_options(sweep: Sweep) -> tuple[str, ...]:
    """What every worker of a trial is told besides."""
    every = sweep.spec.evaluate_every
    return ("--unattended", *(("--evaluate-every", str(every)) if every else ()))


def _about(number: int, tell: Callable[[str], None]) -> Callable[[str], None]:
    return lambda sentence: tell(f"trial {number}: {sentence}")
