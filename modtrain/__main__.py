"""`modtrain` and `python -m modtrain`: the command line as a process."""

import contextlib
import logging
import os
import sys
import threading

from modtrain.cli import main


def run() -> None:
    """Run the command line and exit.

    Where a tracker hangs the process exits at once: Python would wait for the threads of the tracker's package.
    """
    try:
        main()
    except SystemExit as exit_:
        if not any(thread.name.startswith("tracker ") for thread in threading.enumerate()):
            raise
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_.code if isinstance(exit_.code, int) else 0)


if __name__ == "__main__":
    run()
