"""`launch --detach`: the launcher goes on in the background, in a session of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import typer

from modtrain.cli.terminal import short
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.storage.run import Run

READY = b"submitted"


def detach(run: Run, backend: str, options: BackendOptions) -> None:
    """Start a launcher of `run` and return when it has submitted the jobs; leave with its exit code where it failed."""
    log = run.path / "jobs" / "launch.log"
    log.parent.mkdir(exist_ok=True)
    begun = log.stat().st_size if log.exists() else 0
    child, answer = _start(run, backend, options, log)
    if answer != READY:
        code = child.wait()
        typer.echo(_tail(log, begun), err=True)
        raise typer.Exit(code or 1)
    shown = shlex.quote(short(run.path))
    typer.echo(f"{run.name} is running in the background (process {child.pid}).")
    typer.echo(f"  watch it   modtrain status {shown}")
    typer.echo(f"  stop it    modtrain stop {shown}")
    typer.echo(f"  its words  {short(log)}")


def say_ready(descriptor: int | None) -> None:
    """Tell the command that started this launcher that the jobs are submitted."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(descriptor, READY)
            os.close(descriptor)


def _start(run: Run, backend: str, options: BackendOptions, log: Path) -> tuple[subprocess.Popen[bytes], bytes]:
    """The launcher, and what it said through its pipe; nothing where it ended before it was ready."""
    ours, its = os.pipe()
    command = [sys.executable, "-m", "modtrain", "launch", str(run.path), "--backend", backend]
    command += ["--ready-fd", str(its), *(["--address", options.address] if options.address else [])]
    command += ["--cpus", str(options.profile.cpus)] if options.profile.cpus else []
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, pass_fds=(its,)
        )
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        return child, pipe.read(len(READY))


def _tail(log: Path, begun: int) -> str:
    with log.open("rb") as file:
        file.seek(begun)
        return file.read()[-4000:].decode(errors="replace").rstrip()
