"""`modtrain log`: the output of the workers, merged, followed, and read from the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from modtrain.storage.run import Run
from tests.support import runs
from tests.support.command import Terminal, ended, start

APART = [["generator"], ["discriminator"]]


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    made = runs.make_run(tmp_path / "run", tiny_recipe, APART)
    for module in made.modules:
        made.module_path(module).mkdir(parents=True)
    return made


def say(run: Run, module: str, *lines: str) -> None:
    with (run.module_path(module) / "worker.log").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def at(second: int, text: str) -> str:
    return f"2026-01-01 00:00:{second:02d},000 INFO {text}"


def test_the_lines_of_all_workers_are_merged_by_time_with_the_module_in_front(run: Run, terminal: Terminal) -> None:
    say(run, "generator", at(1, "first"), at(4, "fails"), "Traceback of the fourth", at(6, "last"))
    say(run, "discriminator", at(2, "second"), at(5, "fifth"))
    result = terminal("log", run.path)
    assert result.code == 0
    assert [line.split()[-1] for line in result.out.splitlines()] == [
        "first",
        "second",
        "fails",
        "fourth",
        "fifth",
        "last",
    ]
    assert result.out.splitlines()[0] == f"generator     | {at(1, 'first')}"
    assert result.out.splitlines()[1] == f"discriminator | {at(2, 'second')}"


def test_one_module_alone_stands_as_it_was_written_and_only_its_last_lines(run: Run, terminal: Terminal) -> None:
    say(run, "generator", *(at(second, f"line {second}") for second in range(60)))
    assert terminal("log", run.path, "generator", "-n", 2).out == f"{at(58, 'line 58')}\n{at(59, 'line 59')}\n"
    assert len(terminal("log", run.path, "generator").out.splitlines()) == 40
    result = terminal("log", run.path, "generator", "-n", 0)
    assert (result.out, result.err) == ("", "")


def test_modules_of_one_worker_share_its_log_and_it_is_shown_once(
    tmp_path: Path, tiny_recipe: Path, terminal: Terminal
) -> None:
    run = runs.make_run(tmp_path / "joint", tiny_recipe, [["generator", "discriminator"]])
    runs.finish(run)
    runs.finish(run)
    result = terminal("log", run.path).out
    assert result.count("Resumed at step") == 1
    assert result.count(f"Trains generator, discriminator on {socket.gethostname()} (cpu), steps 0 to") == 1
    assert result.count(f"Epoch {run.spec.epochs} of {run.spec.epochs}, step ") == 1
    assert "loss of discriminator" in result
    assert terminal("log", run.path, "discriminator").out.count("Resumed at step") == 1


def test_a_wrong_module_is_refused_with_those_that_there_are(run: Run, terminal: Terminal) -> None:
    result = terminal("log", run.path, "generater")
    assert result.code == 2
    assert result.err == (
        "modtrain: run has no module 'generater'; it has generator, discriminator. Did you mean 'generator'?\n"
    )


def test_a_run_that_has_said_nothing_yet_is_no_error(run: Run, terminal: Terminal) -> None:
    result = terminal("log", run.path)
    assert (result.code, result.out) == (0, "")
    assert "The workers of run have no log." in result.err


def test_what_a_terminal_would_obey_is_not_printed_and_a_last_line_without_end_is(run: Run, terminal: Terminal) -> None:
    (run.module_path("generator") / "worker.log").write_bytes(b"\x1b]0;title\x07 \xff\n\x9b2J torn")
    out = terminal("log", run.path, "generator").out
    assert not {"\x1b", "\x07", "\x9b"} & set(out)
    assert out.endswith("torn\n")


def test_a_log_of_two_gigabytes_costs_neither_memory_nor_time(run: Run) -> None:
    with (run.module_path("generator") / "worker.log").open("wb") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(at(1, f"line {number}").encode() + b"\n" for number in range(1000)))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20)); from modtrain.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "log", str(run.path), "generator", "-n", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [at(1, f"line {number}") for number in (997, 998, 999)]


class Following:
    """`modtrain log -f` as a process, with the lines that it has printed."""

    def __init__(self, run: Run, *words: object) -> None:
        self.process = start("log", run.path, "-f", *words)
        self._lines: Queue[str] = Queue()
        assert self.process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._thread.start()

    def _read(self, output: Iterator[str]) -> None:
        for line in output:
            self._lines.put(line.rstrip("\n"))

    def next(self) -> str:
        try:
            return self._lines.get(timeout=60)
        except Empty:
            raise AssertionError(f"nothing was printed; the process ended with {self.process.poll()}") from None

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self._thread.join(timeout=60)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        result = self.process.stderr.read()
        self.process.stderr.close()
        return code, result


def test_a_log_is_followed_before_it_exists_over_a_new_file_and_until_ctrl_c(run: Run) -> None:
    following = Following(run)
    say(run, "generator", at(1, "one"))
    assert following.next() == f"generator     | {at(1, 'one')}"
    path = run.module_path("generator") / "worker.log"
    with path.open("a") as file:
        file.write("torn ")
        file.flush()
        say(run, "discriminator", at(2, "two"))
        assert following.next() == f"discriminator | {at(2, 'two')}"
        file.write("and whole\n")
    assert following.next() == "generator     | torn and whole"
    path.rename(path.with_suffix(".1"))
    say(run, "generator", at(3, "of a new file"))
    assert following.next() == f"generator     | {at(3, 'of a new file')}"
    path.write_text("cut\n")
    assert following.next() == "generator     | cut"
    assert following.end(signal.SIGINT) == (130, "")


def test_a_reader_that_goes_away_ends_it_quietly(run: Run) -> None:
    say(run, "generator", *(at(1, "x" * 100) for _ in range(5000)))
    process = start("log", run.path, "-n", 5000)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    result = ended(process)
    assert (result.code, result.err) == (141, "")
