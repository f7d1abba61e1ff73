"""The program of the driver process (`driver.py`): it answers calls from a pipe until the other end is closed."""

from __future__ import annotations

import contextlib
import signal
import sys
from multiprocessing.connection import Connection

from modtrain.errors import ModtrainError
from modtrain.scheduling.backends.ray import cluster
from modtrain.scheduling.backends.ray.actors import Actors


def main() -> None:
    """Read the address, then calls as (method of `Actors`, arguments); write each result or error."""
    # A scheduler's SIGTERM is handled by the launcher, which closes the pipe. A handler, as SIG_IGN would be inherited.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    pipe: Connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, OSError):
        actors = Actors(pipe.recv())
        while True:
            method, arguments = pipe.recv()
            pipe.send(_result(actors, method, arguments))
    cluster.leave()


def _result(actors: Actors, method: str, arguments: tuple[object, ...]) -> object:
    try:
        return getattr(actors, method)(*arguments)
    except ModtrainError as error:
        return error
    except Exception as error:
        return ModtrainError(f"Ray failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    main()
