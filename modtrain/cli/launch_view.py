"""What a person sees while a launch runs: a live table on a terminal, lines now and then elsewhere; and Ctrl-C.

Deliberately not here: starting jobs and starting them again (`modtrain/launch.py`).
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.errors import OUTCOMES, STOPPED, InputError, Interrupted, ModtrainError, Preempted, StopRequested
from modtrain.monitoring.status import summary
from modtrain.recipes.loading import recipe_of
from modtrain.scheduling import job_record
from modtrain.scheduling.launcher import Launch, Member
from modtrain.storage import filesystem
from modtrain.storage.liveness import OVER

LOOK_S = 1.0
"""Seconds between two looks at the heartbeats."""
LINES_S = (5.0, 60.0)
"""Seconds between two lines of one worker where there is no terminal: at first, and at most."""


class Watch:
    """One launch as a person follows it."""

    def __init__(self, launch: Launch) -> None:
        """To be made before the jobs are submitted: a heartbeat that is there now is of an earlier life."""
        self.launch, self.run = launch, launch.run
        self.out = terminal.console()
        self._before = {module: self.run.heartbeat(module) for module in self.run.modules}
        self._ids: dict[int, str | None] = {}
        self._signals: list[signal.Signals] = []
        self._begun = time.monotonic()
        self._told: dict[int, tuple[str, float, float]] = {}
        self._asked = 0

    def to_the_end(self) -> int:
        """Follow until every worker is over; the exit code of the whole."""
        self._header()
        looked = float("-inf")
        with terminal.signals_noted(self._signals), self._shown() as show:
            for members in self.launch.watch(self._tell):
                self._obey()
                over = all(member.over for member in members)
                if over or time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    show(self._found(members))
        self._reasons()
        return self._outcome()

    def finished(self, seconds: float) -> None:
        """The metrics, the grid, and how long it took."""
        recipe = recipe_of(self.run.spec)
        self.out.print()
        if recipe.evaluate is None:
            self.out.print(f"Finished in {terminal.duration(seconds)}. The recipe has no `evaluate`: no metrics.")
            return
        from modtrain.training.evaluation import evaluate

        try:
            found = evaluate(self.run)
        except InputError as error:
            self.out.print(f"Finished in {terminal.duration(seconds)}, but not evaluated: {error}", soft_wrap=True)
            return
        self.out.print(terminal.metrics_table(found["metrics"]))
        grid = {"grid": terminal.short(Path(found["grid"]))} if found["grid"] else {}
        self.out.print()
        last = {**grid, "run": terminal.short(self.run.path), "took": terminal.duration(seconds)}
        for name, value in last.items():  # not as a table: a path is not to be folded
            self.out.print(Text.assemble((f"{name:<4}  ", "dim"), value), soft_wrap=True)

    def _header(self) -> None:
        spec = self.run.spec
        workers = "1 worker" if len(spec.placement) == 1 else f"{len(spec.placement)} workers"
        what = f"{Path(spec.recipe).name}, {spec.epochs} epochs, {workers} by {self.launch.backend_name}"
        self.out.print(Text.assemble((self.run.name, "bold"), "  ", (what, "dim")), soft_wrap=True)
        if not self.out.is_terminal:
            self.out.print(Text(f"in {terminal.short(self.run.path)}"), soft_wrap=True)

    def _tell(self, sentence: str) -> None:
        """One line of news after the time since the launch; on a terminal it wraps beside the time."""
        clock = f"{terminal.clock(time.monotonic() - self._begun):>7}"
        if not self.out.is_terminal:
            self.out.print(Text(f"{clock}  {sentence}"), soft_wrap=True)
            return
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(Text(clock, "dim"), Text(sentence))
        self.out.print(line)

    @contextmanager
    def _shown(self) -> Iterator[Any]:
        """What is called with each new state: the live table, or the lines."""
        if not terminal.is_live(self.out):
            yield self._lines
            return
        with Live(console=self.out, auto_refresh=False, redirect_stdout=True, redirect_stderr=True) as live:
            # Log lines go through a stream that was taken before; the live table must not be written over.
            quiet = [handler for handler in logging.root.handlers if isinstance(handler, logging.StreamHandler)]
            with ExitStack() as stack:
                for handler in quiet:
                    stack.callback(handler.setStream, handler.setStream(_Through(self.out)))
                yield lambda found: live.update(self._table(found), refresh=True)

    def _table(self, found: dict[str, Any]) -> RenderableType:
        done = [m["step"] / m["steps"] if m["steps"] else 0.0 for m in found["modules"].values()]
        left = [w["left_s"] for w in found["workers"] if w["left_s"] is not None and w["state"] not in OVER]
        foot = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=1, completed=min(done), width=min(48, self.out.width - 30))
        ahead = f"{terminal.clock(max(left))} left" if left else ""
        foot.add_row(bar, f"{min(done):.0%}", Text(f"{terminal.clock(time.monotonic() - self._begun)}"), ahead)
        return Group("", terminal.modules_table(found, width=self.out.width), "", foot)

    def _lines(self, found: dict[str, Any]) -> None:
        """A line of a worker whose state has changed, or that was silent for a while."""
        now = time.monotonic()
        for number, worker in enumerate(found["workers"]):
            state, at, pause_s = self._told.get(number, ("", 0.0, LINES_S[0]))
            changed = worker["state"] != state and {worker["state"], state} != {"training", "waiting"}
            if not changed and (now - at < pause_s or worker["state"] in OVER):
                continue
            self._told[number] = (worker["state"], now, min(pause_s * 1.3, LINES_S[1]))
            self._tell(line_of(worker, found["modules"][worker["modules"][0]]))

    def _found(self, members: list[Member]) -> dict[str, Any]:
        """The folder's state, with what the launcher knows better: which heartbeats are of an earlier life."""
        beats = {module: self.run.heartbeat(module) for module in self.run.modules}
        states = {}
        for member in members:
            self._note_life(member, beats)
            for module in member.modules:
                beats[module] = {} if self._is_old(module, beats[module]) and not member.over else beats[module]
                states[module] = _state(member, beats[module], self.launch.backend.unattended)
        return summary(self.run, beats, states)

    def _note_life(self, member: Member, beats: dict[str, dict[str, Any]]) -> None:
        """A job that was started again has said nothing yet, whatever its predecessor said."""
        if member.number in self._ids and member.id != self._ids[member.number]:
            self._before |= {module: beats[module] for module in member.modules}
        self._ids[member.number] = member.id

    def _is_old(self, module: str, beat: dict[str, Any]) -> bool:
        """Of a life before this launch, which has not beaten since: one that was taken over beats on."""
        return all(beat.get(key) == self._before[module].get(key) for key in ("host", "pid", "started", "counter"))

    def _obey(self) -> None:
        """The first signal asks the workers to leave, the second one ends them."""
        if self._signals and self._asked == 0:
            self.run.request_stop("Ctrl-C" if self._signals[0] is signal.SIGINT else "the launcher was told to leave")
            self._tell("Asked every worker to publish and leave. Once more ends them at once, without publishing.")
            self._asked = 1
            self._withdraw()
        elif len(self._signals) > 1 and self._asked == 1:
            self._tell("Ending every worker now; what is published stays.")
            self._asked = 2
            self.launch.cancel()

    def _withdraw(self) -> None:
        """What only waits in a scheduler's queue need not get its turn before it can leave."""
        try:
            waiting = job_record.withdraw(self.run)
        except ModtrainError as error:
            self._tell(str(error))
            return
        for member in self.launch.members:
            if member.number in waiting:
                member.over, member.exit_code = True, StopRequested.exit_code

    def _reasons(self) -> None:
        """One sentence for each worker that failed, and where its log is; the same reason is said once."""
        said: dict[str, list[Member]] = {}
        for member in self.launch.members:
            if member.exit_code not in (0, *STOPPED) and self._asked < 2:
                said.setdefault(self._reason(member), []).append(member)
        for reason, members in said.items():
            names = ", ".join(member.name for member in members)
            self.out.print(Text.assemble(("\n" + names, "bold red"), f" failed: {reason}"))
            self.out.print(Text(f"See {terminal.short(self._log(members[0]))}"), soft_wrap=True)

    def _reason(self, member: Member) -> str:
        """What it said last; where it did not come so far, the last line that it wrote."""
        beat = self.run.heartbeat(member.modules[0])
        lines = [line for line in filesystem.read_lines(self._job_log(member)) if line.strip()]
        if not lines or (beat.get("trouble") and not self._is_old(member.modules[0], beat)):
            return self.launch.trouble(member)
        return lines[-1].removeprefix("modtrain: ")

    def _log(self, member: Member) -> Path:
        log = self.run.module_path(member.modules[0]) / "worker.log"
        return log if log.exists() else self._job_log(member)

    def _job_log(self, member: Member) -> Path:
        return self.run.path / "jobs" / f"{member.number}.log"

    def _outcome(self) -> int:
        code = self.launch.outcome()
        if not self._signals or (code not in STOPPED and self._asked < 2):
            return self._left(code)
        error: type[ModtrainError] = Interrupted if self._signals[0] is signal.SIGINT else Preempted
        return self._left(error.exit_code)

    def _left(self, code: int) -> int:
        if code in STOPPED:
            why = self.run.stop_requested()
            about = f" ({why})" if why else ""
            self.out.print(
                f"\nStopped{about}. `modtrain launch {terminal.short(self.run.path)}` goes on.", soft_wrap=True
            )
        return code


class _Through:
    """A stream that prints above the live table."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def write(self, text: str) -> None:
        if text.strip():
            self._out.print(Text(text.rstrip("\n")))

    def flush(self) -> None:
        """Nothing is kept back."""


def _state(member: Member, beat: dict[str, Any], queues: bool) -> str:
    """Of a worker; `queues` where jobs wait for their turn, also when they are continued."""
    if member.over:
        return "finished" if member.exit_code == 0 else OUTCOMES.get(member.exit_code or 1, "failed")
    if member.id is None:
        return "restarting"
    if member.phase == "pending" and queues:
        return "queued"
    state = str(beat.get("state", "starting"))
    return "starting" if queues and member.phase == "running" and state == "preempted" else state


def line_of(worker: dict[str, Any], module: dict[str, Any]) -> str:
    """What a worker does, where there is no terminal."""
    name = "+".join(worker["modules"])
    if worker["state"] not in ("training", "waiting"):
        return f"{name:<28}  {worker['state']}"
    state = f"waiting for {worker['waiting_for']}" if worker["state"] == "waiting" else "training"
    parts = [state, f"epoch {module['epoch']}/{module['epochs']}", f"step {module['step']}/{module['steps'] or '?'}"]
    parts += [terminal.rate(worker["steps_per_s"])] if worker["steps_per_s"] else []
    parts += [f"{terminal.clock(worker['left_s'])} left"] if worker["left_s"] is not None else []
    loss = module["losses"].get("loss")
    parts += [f"loss {terminal.number(loss)}"] if loss is not None else []
    return f"{name:<28}  {', '.join(parts)}"
