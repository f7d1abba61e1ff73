"""Entry point of the fake's programs: qsub, qstat and qdel, and the supervisor of a job.

Started as `python -IS -c ... ROOT HOME NAME ARGUMENT...`; every call of one of the three adds a line to `calls.log`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from .cluster import SERVER, VERSION, Cluster, Gone, Refused

NO_SERVER = 15010
"""By which the real client reports a refused connection."""


def main() -> None:
    """Run the program named on the command line."""
    home, name, *arguments = sys.argv[1:]
    if name != "supervisor":
        _log(Path(home), [name, *arguments])
        if arguments == ["--version"]:
            sys.stdout.write(f"pbs_version = {VERSION}\n")
            return
    program = importlib.import_module(f"tests.support.fake_pbs.{name}")
    try:
        if name != "supervisor" and not Cluster.load(Path(home)).answers:
            _refuse_connection(name, arguments)
        program.main(Path(home), arguments)
    except Refused as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(error.code)
    except Gone:
        sys.stderr.write(f"{name}: cannot connect to server fakepbs (errno=15034)\n")
        sys.exit(186)


def _refuse_connection(name: str, arguments: list[str]) -> NoReturn:
    """What a program prints while the server is away: qstat and qdel the same two lines for each job."""
    jobs = [word for word in arguments if not word.startswith("-")] if name != "qsub" else [""]
    for _ in jobs or [""]:
        sys.stderr.write(f"Connection refused\n{name}: cannot connect to server {SERVER} (errno={NO_SERVER})\n")
    sys.exit(-1 if name == "qstat" else NO_SERVER % 256)


def _log(home: Path, call: list[str]) -> None:
    """One line, written at once, so that lines of several programs do not mix."""
    try:
        log = os.open(home / "calls.log", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return  # taken down; the program itself fails with Gone
    os.write(log, f"{json.dumps(call)}\n".encode())
    os.close(log)
