"""The process that has imported torch: forks for each request on a socket, and answers with how the fork ended."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
import time
import types
from typing import Any, NoReturn

from stand_in import FORK_OF, kind

F_SETSIG = 10
PRELOADED = (
    "torch",
    "modtrain.training.worker",
    "modtrain.training.worker_process",
    "modtrain.training.evaluation",
    "modtrain.training.recipe_check.check",
    "modtrain.training.trackers.tensorboard",
    "modtrain.recipes.latent_translation",
    "modtrain.cli.terminal",
    "modtrain.monitoring.status",
    "modtrain.scheduling.launcher",
    "modtrain.sweeps.runner",
)


@functools.cache
def preload() -> None:
    """Import what commands import, also what torch imports at the first use of an optimizer; once."""
    for name in PRELOADED:
        __import__(name)
    import torch

    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).zero_grad()
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page of what is imported


class Server:
    """Answers requests until its input closes and no fork is left."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(100)
        self._forks: dict[int, tuple[int, socket.socket]] = {}
        """Process id and connection by pidfd."""
        self._selector = selectors.DefaultSelector()
        self._kind = json.loads(json.dumps(kind()))  # before imports add variables of their own
        self._open = True

    def serve(self) -> dict[str, Any] | None:
        """None at the end; in a fork the request that it is to fulfil."""
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while self._open or self._forks:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    self._open = False
                    self._selector.unregister(0)
                    self._selector.unregister(self._listener)
                    self._listener.close()
                elif key.fd in self._forks:
                    self._report(key.fd)
                elif (request := self._accept()) is not None:
                    return request
        return None

    def _report(self, fork: int) -> None:
        self._selector.unregister(fork)
        pid, connection = self._forks.pop(fork)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(fork)

    def _accept(self) -> dict[str, Any] | None:
        connection, _ = self._listener.accept()
        preload()  # not before: most selections of tests start no command
        request, streams = receive(connection)
        if request is None or request["kind"] != self._kind:
            with contextlib.suppress(OSError), connection:
                connection.sendall(b"0\n")
            pid = 0
        elif (pid := os.fork()) == 0:
            self._leave()
            return request | {"descriptors": streams}
        for stream in streams:
            os.close(stream)
        if pid:
            fork = os.pidfd_open(pid)
            self._forks[fork] = pid, connection
            self._selector.register(fork, selectors.EVENT_READ)
            with contextlib.suppress(OSError):
                connection.sendall(b"%d\n" % pid)
        return None

    def _leave(self) -> None:
        """Close in a fork what is the server's."""
        self._selector.close()
        self._listener.close()
        for fork, (_, connection) in self._forks.items():
            connection.close()
            os.close(fork)


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """A request with its open files: the standard streams, and a pipe that closes when the requesting process dies."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 4)
    line = connection.makefile("rb").readline()
    return (json.loads(line) if line and len(streams) == 4 else None), streams


def die_with(pipe: int) -> None:
    """Have the kernel kill this process as soon as the other end of a pipe is closed."""
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGKILL)  # it was closed before


def become(request: dict[str, Any]) -> None:
    """Take over what the requesting process has."""
    os.setsid()
    *streams, pipe = request["descriptors"]
    os.set_inheritable(pipe, False)
    die_with(pipe)
    with open("/proc/self/comm", "w") as comm:
        comm.write(f"{FORK_OF}{request['pid']}")  # shown by ps, and read by `stand_in_of`
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for name, limit in request["limits"].items():
        resource.setrlimit(getattr(resource, name), limit)
    os.sched_setaffinity(0, request["cpus"])
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    become_python(request)


def become_python(request: dict[str, Any]) -> None:
    """The interpreter's own state: streams, path, random numbers."""
    import numpy as np
    import torch

    names = ("stdin", "stdout", "stderr")
    for number, (name, (encoding, errors)) in enumerate(zip(names, request["streams"], strict=True)):
        buffering = 1 if name == "stderr" else -1
        stream = open(number, "r" if number == 0 else "w", buffering, encoding, errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path[:] = request["path"]
    np.random.seed()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))


def run(option: str, what: str, *words: str) -> int:
    """Run a module as `python -m` does, or code as `python -c` does; the exit code."""
    sys.argv[:] = ["-c" if option == "-c" else sys.argv[0], *words]
    sys.orig_argv[1:] = [option, what, *words]
    try:
        if option == "-c":
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(what, vars(sys.modules["__main__"]))
        else:
            runpy.run_module(what, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def end(code: int) -> NoReturn:
    """End as the interpreter does, but leave the modules as they are: to take torch apart costs a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


def main() -> None:
    """Serve; a fork returns from there as the command that it was asked for."""
    request = Server(sys.argv[1]).serve()
    if request is None:
        os._exit(0)  # what an imported package has to say at its end is of no interest
    become(request)
    end(run(*request["command"]))


if __name__ == "__main__":
    main()
