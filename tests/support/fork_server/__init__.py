"""Fast `python -m modtrain worker` processes in tests: forked from a process that has imported torch already.

Importing torch and the parts of it that an optimizer needs costs a worker 80 to 90 % of its CPU time in tests.
While `forked_commands` is open, a `sitecustomize` module on PYTHONPATH has every new `python -m modtrain COMMAND`, and
each process of pytest-xdist, ask the server of this package for a fork. The product has no part in it. See
`stand_in.py` for what stays the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.fork_server.stand_in import FORK_OF

SOCKET = "socket"
ENDS_S = 20.0
HERE = Path(__file__).parent


@contextlib.contextmanager
def forked_commands() -> Iterator[None]:
    """Until the block ends, commands and processes of pytest-xdist that import torch are forked from one that has it.

    It changes PYTHONPATH and the import path of this process, since modtrain hands the latter on to its workers. The
    first command waits until the server has imported everything.
    """
    before = os.environ.get("PYTHONPATH")
    folder = Path(tempfile.mkdtemp(prefix="fork-", dir="/tmp"))  # short: the path of a socket has 107 bytes
    shutil.copy(HERE / "stand_in.py", folder / "sitecustomize.py")
    server = subprocess.Popen(
        [sys.executable, str(HERE / "server.py"), str(folder / SOCKET)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    use_python_path()
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        shutil.rmtree(folder)
        try:
            server.communicate(timeout=ENDS_S)  # its input closes, and it ends with its last child
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def stand_in_of(pid: int) -> int:
    """The process that stands for a fork, which is the child of the one that started the command; or `pid` itself."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return int(name.removeprefix(FORK_OF)) if name.startswith(FORK_OF) else pid


def use_python_path() -> None:
    """Add what PYTHONPATH has to the import path, as a new process would."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path += [entry for entry in entries if entry and entry not in sys.path]
