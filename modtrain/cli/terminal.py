"""Output on a terminal: the console, durations, states in colour, tables; and signals that a user sends from it."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Column as Column
from rich.table import Table as Table
from rich.text import Text as Text

from modtrain.cli import closed_pipe
from modtrain.cli.output import KEPT
from modtrain.errors import counted
from modtrain.errors import plain as plain

if TYPE_CHECKING:
    from modtrain.storage.run import RunSpec

WIDE, NARROW = 100, 60
"""Widths in columns: from the first one peers have a column of their own, below the second one numbers are omitted."""
_NUMBERS = ("version", "epoch", "step", "rate", "left", "loss")

STYLES = {
    **dict.fromkeys(("broken", "failed", "lost"), "bold red"),
    **dict.fromkeys(("cancelled", "preempted", "stopped", "waiting"), "yellow"),
    **dict.fromkeys(("queued", "starting"), "cyan"),
    **dict.fromkeys(("resting", "running"), "green"),
    **dict.fromkeys(("created", "pruned"), "dim"),
    "finished": "bold green",
}


class _Console(Console):
    """A console whose text has no control characters.

    Its reader may close the pipe, as `head` does: that ends the command, unless it has work to do.
    """

    outlives_reader = False

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        if isinstance(renderable, Text) and (text := plain(renderable.plain, KEPT)) != renderable.plain:
            renderable = renderable.copy()
            renderable.plain = text  # before it is laid out: what replaces a character is longer
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text, KEPT), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text, KEPT), **options)

    def on_broken_pipe(self) -> None:
        if not self.outlives_reader:
            raise BrokenPipeError
        closed_pipe.leave()


def console(*, stderr: bool = False, outlives_reader: bool = False) -> Console:
    """A console for standard output or standard error, with colours on a terminal only; text is no markup.

    A command that `outlives_reader` goes on without output where its reader is gone; any other one ends.
    """
    file = sys.stderr if stderr else sys.stdout
    out = _Console(stderr=stderr, highlight=False, markup=False, emoji=False, file=file)
    out.outlives_reader = outlives_reader
    return out


def is_live(out: Console) -> bool:
    """Whether output can be updated in place; where it cannot, lines are printed."""
    return out.is_terminal and not out.is_dumb_terminal


class Printed(dict[str, object]):
    """The values that were printed last, where a line is printed for each change."""

    def is_new(self, key: str, value: object) -> bool:
        """Whether another value was printed, or none; it counts as printed from now on."""
        before, self[key] = self.get(key), value
        return before != value


def clock(seconds: float | None) -> str:
    """A duration for a column: 0:42, 4:12, 2:05:10, 3 d 2:05."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """A duration for a sentence: 0.8 s, 42 s, 4 min 12 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def age(seconds: float) -> str:
    """An age in one unit: 12 s, 4 min, 3 h, 5 d."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def alarm_text(alarm: Mapping[str, Any], run: str = "") -> Text:
    """An alarm, and below it what to do."""
    style = "bold red" if alarm["level"] == "bad" else "yellow"
    name = f"{run}: " if run else ""
    return Text.assemble(("! ", style), name, plain(alarm["says"]), (f"\n  {plain(alarm['do'])}", "dim"))


def number(value: float | None) -> str:
    """Three significant digits."""
    return "" if value is None else f"{value:.3g}"


def rate(value: float | None) -> str:
    """Steps per second."""
    return "" if not value else f"{value:.1f}/s" if value >= 1 else f"{value:.2g}/s"


def table(*columns: Column | str, pad: int = 2, header: bool = True) -> Table:
    """A table without lines, `pad` spaces between its columns."""
    return Table(*columns, box=None, pad_edge=False, padding=(0, pad, 0, 0), show_header=header, header_style="dim")


def modules_table(status: Mapping[str, Any], *, width: int) -> RenderableType:
    """One row per module of a status; on a wide terminal the peers have a column, else they are listed below."""
    wide = width >= WIDE
    numbers = [name for name in _NUMBERS if width >= NARROW or name not in ("step", "rate", "loss")]
    titles = [name if wide else name.replace("version", "ver") for name in numbers]
    rows = table(
        Column("module", no_wrap=True, overflow="ellipsis"),
        Column("state", no_wrap=True),
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        *(["trained against"] if wide else []),
        pad=2 if wide else 1,
    )
    below: list[Text] = []
    for name, module in status["modules"].items():
        worker = status["workers"][module["worker"]]
        peers, texts = _peers(module, worker), _numbers(module, worker, wide)
        cells: list[RenderableType] = [Text(name, "bold"), state_text(module["state"]), *(texts[n] for n in numbers)]
        rows.add_row(*cells, *([Text("\n").join(peers)] if wide else []))
        below += [Text.assemble((f"{name}: ", "dim"), Text(", ").join(peers))] if peers else []
    return rows if wide or not below else Group(rows, "", *below)


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, STYLES.get(state, ""))


def metrics_table(metrics: Mapping[str, float | None]) -> Table:
    """One row per metric."""
    return facts({name: "not finite" if value is None else f"{value:.4g}" for name, value in metrics.items()})


def judge_note(metrics: Iterable[str], spec: RunSpec) -> str:
    """What metrics by the judge of the built-in fruits say of other images; empty for these, and for other metrics."""
    judged = [name.split("_") for name in metrics if "orchard" in name.split("_")]
    if spec.dataroot is None or not judged:
        return ""
    from modtrain.metrics.folder_scores import FRUITS_ONLY, OTHER_FEATURES

    return OTHER_FEATURES if all("perceptual" in words for words in judged) else FRUITS_ONLY


def facts(values: Mapping[str, object]) -> Table:
    """Names and values, the names dim."""
    rows = table(Column(style="dim", no_wrap=True), Column(overflow="fold"), header=False)
    for name, value in values.items():
        rows.add_row(name, value if isinstance(value, Text | Table | Group) else Text(str(value)))
    return rows


def _numbers(module: Mapping[str, Any], worker: Mapping[str, Any], wide: bool) -> dict[str, str]:
    live = {module["state"], worker["state"]} <= {"running", "waiting", "resting"}
    steps = f"/{module['steps']}" if wide and module["steps"] else ""
    return {
        "version": "" if module["version"] is None else f"v{module['version']}",
        "epoch": f"{module['epoch']}/{module['epochs']}",
        "step": f"{module['step']}{steps}",
        "rate": rate(worker["steps_per_s"]) if live else "",
        "left": clock(worker["left_s"]) if live else "",
        "loss": number(module["losses"].get("loss", module["metrics"].get("loss"))),
    }


def _peers(module: Mapping[str, Any], worker: Mapping[str, Any]) -> list[Text]:
    """The versions that the module was trained against, and the peer that it waits for."""
    texts = []
    for name, peer in module["peers"].items():
        if peer["version"] is not None:
            steps = f" ({counted(count, 'step')})" if (count := peer.get("behind_steps")) else ""
            behind = f", {peer['behind']} behind{steps}" if peer["behind"] else ""
            texts.append(Text(f"{name} v{peer['version']}{behind}", "dim"))
    waits = [Text(f"waits for {worker['waiting_for']}", "yellow")] if module["state"] == "waiting" else []
    return texts + waits


def exchange_facts(exchange_every: int | None, max_staleness: int | str | None) -> dict[str, str]:
    """When workers exchange versions, and how old those of peers may be."""
    most = "one exchange" if max_staleness == "exchange" else counted(int(max_staleness or 0), "epoch")
    return {
        "exchange": f"every {counted(exchange_every, 'step')}" if exchange_every else "after every epoch",
        "staleness": "unbounded" if max_staleness is None else f"at most {most}",
    }


def short(path: Path) -> str:
    """The path, relative to the working folder where it is inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def hangup_is_ignored() -> bool:
    """Whether a closed terminal leaves this process alone, as `nohup` arranges it."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def closing_words(*, unattended: bool, detaches: bool = True) -> str:
    """What becomes of the workers when this terminal is closed; empty where there is none.

    `unattended`: their scheduler runs them. `detaches`: the command has an option --detach.
    """
    if not any(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return ""
    if unattended or hangup_is_ignored():
        return "The workers continue when this terminal is closed."
    keep = "--detach" if detaches else "nohup"
    return f"When this terminal is closed, the workers publish and exit; with {keep} they continue."


def mute() -> None:
    """Discard all further output to a terminal that was closed: it would fail."""
    with open(os.devnull, "wb") as nowhere:
        for stream in (1, 2):
            with contextlib.suppress(OSError):
                if not stat.S_ISREG(os.fstat(stream).st_mode):
                    os.dup2(nowhere.fileno(), stream)


@contextmanager
def collected_signals(received: list[signal.Signals], *, hangup: bool = True) -> Iterator[None]:
    """Within this block Ctrl-C and SIGTERM are appended to a list instead of ending the process.

    With `hangup` also the SIGHUP of a closed terminal, unless it is ignored; it comes more than once, and counts only
    where it is the first signal.
    """

    def collect(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            mute()
        if number != signal.SIGHUP or not received:
            received.append(signal.Signals(number))

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangup and not hangup_is_ignored() else [])]
    before = {number: signal.signal(number, collect) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupting_signals(received: list[signal.Signals]) -> Iterator[None]:
    """Within this block SIGTERM interrupts as Ctrl-C does, and is appended to a list; it would end the process else.

    So does the SIGHUP of a closed terminal, unless it is ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            mute()
        received.append(signal.Signals(number))
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # it comes more than once, and what follows is not to be interrupted
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([] if hangup_is_ignored() else [signal.SIGHUP])]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cause(number: signal.Signals) -> str:
    """What a received signal was, for the reason of a stop request."""
    return {signal.SIGINT: "Ctrl-C", signal.SIGHUP: "the terminal was closed"}.get(number, number.name)
