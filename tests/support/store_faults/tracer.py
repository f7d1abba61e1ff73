"""Runs a function in a forked child and steps it from system call to system call, so that a fault can be put at any.

The child is forked, not started: a thousand faults take seconds. Not here: what is run and what must hold afterwards.
Only for processes without threads, and errors only on x86-64 (kills and pauses everywhere).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long
_TRACEME, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 12, 13, 24, 0x4200, 0x420E
_SYSCALL_GOOD, _EXITKILL = 1, 1 << 20
_RAX, _ORIG_RAX = 10, 15  # places in x86-64's user_regs_struct

_NAMES = {
    "x86_64": {
        **{0: "read", 1: "write", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 17: "pread64", 74: "fsync"},
        **{82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 217: "getdents64", 257: "openat", 258: "mkdirat"},
        **{110: "getppid", 231: "exit_group", 262: "newfstatat", 263: "unlinkat", 264: "renameat", 316: "renameat2"},
    },
    "aarch64": {
        **{34: "mkdirat", 35: "unlinkat", 38: "renameat", 56: "openat", 57: "close", 61: "getdents64", 63: "read"},
        **{64: "write", 67: "pread64", 79: "newfstatat", 80: "fstat", 82: "fsync", 94: "exit_group", 173: "getppid"},
        **{276: "renameat2"},
    },
}.get(platform.machine(), {})
EXIT = "exit_group"
"""Every child's last call; it does not return."""


@dataclass(frozen=True)
class Lost:
    """The call is done, but its success is reported as this errno."""

    number: int


class Kill(Enum):
    """SIGKILL instead of the call, or right after it."""

    BEFORE = "before"
    AFTER = "after"


Fault = Kill | Lost | int
"""A plain number is an errno that is returned instead of the call."""


@dataclass
class Outcome:
    """How the child ended, and where the fault was."""

    calls: list[str] = field(default_factory=list)
    """Every system call that it began."""
    hit: str | None = None
    """The call at which the fault was put; None where the child ended before."""
    signal: int = 0
    exit_code: int = -1


class _SyscallInfo(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 2),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


def run(child: Callable[[], int], fault: Callable[[int, str], Fault | None]) -> Outcome:
    """Run `child` in a fork; before its n-th call, `fault(n, name)` says: go on (None), or what goes wrong."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            code = child()
        finally:
            os._exit(code)
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, data=_SYSCALL_GOOD | _EXITKILL)
    outcome = Outcome()
    _step(pid, outcome, fault)
    return outcome


def _step(pid: int, outcome: Outcome, fault: Callable[[int, str], Fault | None]) -> None:
    pending: Fault | None = None
    deliver = 0
    while True:
        with contextlib.suppress(ProcessLookupError):  # it was killed just now
            _ptrace(_SYSCALL, pid, data=deliver)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            outcome.exit_code = os.WEXITSTATUS(status)
            return
        if os.WIFSIGNALED(status):
            outcome.signal = os.WTERMSIG(status)
            return
        if (stopped_by := os.WSTOPSIG(status)) != signal.SIGTRAP | 0x80:
            deliver = stopped_by
            continue
        deliver = 0
        info = _SyscallInfo()
        _ptrace(_GET_SYSCALL_INFO, pid, address=ctypes.sizeof(info), data=ctypes.addressof(info))
        if info.op == 1:
            pending = _begin(pid, _NAMES.get(info.number, str(info.number)), outcome, fault)
        elif pending is Kill.AFTER:
            os.kill(pid, signal.SIGKILL)
        elif isinstance(pending, Lost | int):
            _set_register(pid, _RAX, -(pending.number if isinstance(pending, Lost) else pending))


def _begin(pid: int, name: str, outcome: Outcome, fault: Callable[[int, str], Fault | None]) -> Fault | None:
    outcome.calls.append(name)
    wanted = fault(len(outcome.calls), name)
    if wanted is not None:
        outcome.hit = name
    if wanted is Kill.BEFORE:
        os.kill(pid, signal.SIGKILL)
    elif isinstance(wanted, int):
        _set_register(pid, _ORIG_RAX, -1)
    return wanted


def _set_register(pid: int, place: int, value: int) -> None:
    if platform.machine() != "x86_64":
        raise NotImplementedError("Errors are put into system calls on x86-64 only.")
    registers = (ctypes.c_long * 27)()
    _ptrace(_GETREGS, pid, data=ctypes.addressof(registers))
    registers[place] = value
    _ptrace(_SETREGS, pid, data=ctypes.addressof(registers))


def _ptrace(request: int, pid: int, *, address: int = 0, data: int = 0) -> None:
    if _LIBC.ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace({request:#x}) failed: {os.strerror(error)}")
