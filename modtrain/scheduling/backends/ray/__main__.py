"""What the driver's process runs: it answers questions from a pipe until whoever asks is gone.

Deliberately not here: the other end of the pipe (`driver.py`), and the answers (`actors.py`).
"""

from __future__ import annotations

import contextlib
import signal
import sys
from multiprocessing.connection import Connection

from modtrain.errors import ModtrainError
from modtrain.scheduling.backends.ray import cluster
from modtrain.scheduling.backends.ray.actors import Actors


def main() -> None:
    """Read questions, write answers."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a scheduler's SIGTERM is for the launcher, which asks us to leave
        signal.signal(number, lambda *_: None)  # and not ignored, which all that is started here would inherit
    pipe: Connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, OSError):
        actors = Actors(pipe.recv())
        while True:
            verb, arguments = pipe.recv()
            pipe.send(_answer(actors, verb, arguments))
    cluster.leave()


def _answer(actors: Actors, verb: str, arguments: tuple[object, ...]) -> object:
    try:
        return getattr(actors, verb)(*arguments)
    except ModtrainError as error:
        return error
    except Exception as error:
        return ModtrainError(f"Ray failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    main()
