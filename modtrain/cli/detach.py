"""`launch --detach`: the launcher runs in the background, in a session of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import typer

from modtrain.cli.terminal import short
from modtrain.scheduling.launcher import Launch

READY = b"submitted"


def start_in_background(launch: Launch) -> None:
    """Start a launcher of the run and return once it has submitted the jobs; exit with its code where it failed."""
    log = launch.run.jobs_path / "launch.log"
    log.parent.mkdir(exist_ok=True)
    size = log.stat().st_size if log.exists() else 0
    launcher, answer = _start(launch, log)
    if answer != READY:
        code = launcher.wait()
        typer.echo(_tail(log, size), err=True)
        raise typer.Exit(code or 1)
    path = shlex.quote(short(launch.run.path))
    typer.echo(f"{launch.run.name} is running in the background (process {launcher.pid}).")
    typer.echo(f"  watch     modtrain status {path}")
    typer.echo(f"  stop      modtrain stop {path}")
    typer.echo(f"  output    {short(log)}")


def report_ready(descriptor: int | None) -> None:
    """Report to the command that started this launcher that the jobs are submitted."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(descriptor, READY)
            os.close(descriptor)


def _start(launch: Launch, log: Path) -> tuple[subprocess.Popen[bytes], bytes]:
    """The launcher, and what it wrote into its pipe: nothing where it ended before it was ready."""
    read_end, write_end = os.pipe()
    options = launch.options
    command = [sys.executable, "-m", "modtrain", "launch", str(launch.run.path), "--backend", launch.backend_name]
    command += ["--ready-fd", str(write_end), *(["--address", options.address] if options.address else [])]
    command += ["--cpus", str(options.profile.cpus)] if options.profile.cpus else []
    with log.open("ab") as output:
        launcher = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(write_end,),
        )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        return launcher, pipe.read(len(READY))


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()[-4000:].decode(errors="replace").rstrip()
