"""Lets a new `python -m modtrain COMMAND ...` continue as a fork of a process that has imported torch.

So does each process of pytest-xdist, which imports all tests.

The process that was started stays and stands for its fork: it passes signals on, it ends with the fork's exit code or
signal, and when it dies, also by SIGKILL, the kernel kills the fork. Arguments, working folder, environment, umask,
limits, ignored signals and standard streams of the fork are those of this process. Different are the process id that
the command sees as its own, its session, its parent and its /proc/PID/cmdline.

Where a fork would differ in more (another user, mount namespace or interpreter option, a terminal, a debugger), and
where no server answers, Python starts as usual. Every Python imports this file: it must be quick.
"""

from __future__ import annotations

import os
import sys
from typing import Any

FORK_OF = "fork of "
"""The name of a fork's process begins with this; the process id of the one that stands for it follows."""
MODULES = {"modtrain", "modtrain.training.recipe_check", "modtrain.training.step_costs"}
XDIST = "import sys;exec(eval(sys.stdin.readline()))"
"""The code of a process of pytest-xdist."""
READ_AT_IMPORT = ("CUDA", "COVERAGE", "LD_", "MKL_", "OMP_", "PYTHON", "TORCH")
"""Variables that a library may have read while it was imported."""
FREE = {
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TORCHINDUCTOR_CACHE_DIR"),
    *("PYTHONBREAKPOINT", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONUNBUFFERED"),
}
"""Of those, what a fork takes over, what has no effect in tests, and what packages set themselves."""
FLAGS = ("bytes_warning", "debug", "dev_mode", "ignore_environment", "isolated", "no_site", "optimize", "safe_path")
"""Options of the interpreter that change what a program does."""


def kind() -> dict[str, Any]:
    """What a process must have in common with the server, for a fork of it to be the same as a new one."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(READ_AT_IMPORT)}
    namespaces = [f"/proc/self/ns/{name}" for name in ("mnt", "net", "pid", "user", "uts")]
    flags = [getattr(sys.flags, name) for name in FLAGS]
    return {
        "python": [sys.prefix, sys.version, flags, sys.getfilesystemencoding(), sys.warnoptions],
        "user": [os.getresuid(), os.getresgid(), sorted({os.getegid(), *os.getgroups()})],
        "namespaces": [os.readlink(name) for name in namespaces],  # noqa: PTH115  # pathlib is slow to import
        "variables": {name: value for name, value in variables.items() if name not in FREE},
    }


def command() -> list[str]:
    """The option, module or code, and words of a command that may be forked; nothing for any other."""
    if sys.orig_argv[1:] == ["-u", "-c", XDIST]:
        return ["-c", XDIST]
    # Descriptors beside the standard streams are not passed on; the memory of a dashboard is measured.
    ordinary = {"--detach", "--ready-fd", "dashboard"}.intersection(sys.orig_argv)
    is_known = sys.orig_argv[1:2] == ["-m"] and MODULES.intersection(sys.orig_argv[2:3])
    return sys.orig_argv[1:] if is_known and not ordinary else []


def continue_as_fork(server: str) -> None:
    """Stand for a fork until it ends, and end likewise; return where there is none."""
    import json
    import resource
    import signal
    import socket

    folder = os.getcwd()  # noqa: PTH109
    relayed = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    ignored = {number for number in relayed if signal.getsignal(number) is signal.SIG_IGN}
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    request = {
        "kind": kind(),
        "pid": os.getpid(),
        "path": [folder, *sys.path],
        "command": command(),
        "folder": folder,
        "environment": dict(os.environ),
        "streams": [[stream.encoding, stream.errors] for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "umask": umask(),
        "cpus": list(os.sched_getaffinity(0)),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "ignored": list(ignored),
    }
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, relayed)
    alive, held = os.pipe()  # this process alone holds the writing end, until it dies
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(server)
            socket.send_fds(connection, [b"\0"], [0, 1, 2, alive])
            connection.sendall(json.dumps(request).encode() + b"\n")
            answers = connection.makefile("rb")
            pid = int(answers.readline())
            for number in relayed - ignored if pid else ():
                signal.signal(number, lambda number, frame: os.kill(pid, number))
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            if pid:
                end_with(int(answers.readline() or 1))
    except (OSError, ValueError):
        pass  # no server: its folder is on the path of what outlives it
    os.close(alive)
    os.close(held)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def umask() -> int:
    """The umask, without changing it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def end_with(code: int) -> None:
    """End as `os.waitstatus_to_exitcode` says that the fork did."""
    import resource
    import signal

    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def traced() -> bool:
    """Whether a debugger or strace holds this process."""
    with open("/proc/self/status") as status:
        return "TracerPid:\t0\n" not in status.read()


if __name__ == "sitecustomize" and command():
    try:
        usual = not any(os.isatty(stream) for stream in range(3)) and not traced()
    except OSError:
        usual = False
    if usual and None not in (sys.stdin, sys.stdout, sys.stderr):
        continue_as_fork(__file__.removesuffix("sitecustomize.py") + "socket")
