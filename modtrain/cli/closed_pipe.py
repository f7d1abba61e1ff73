"""A reader that closed the pipe, such as `head`: what is written to it afterwards goes nowhere."""

from __future__ import annotations

import os
import sys

EXIT_CODE = 141
"""Of a command that ends because its reader is gone: 128 + SIGPIPE, as a shell reports it."""


def leave() -> None:
    """Send standard output and standard error nowhere, each where its reader is gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
