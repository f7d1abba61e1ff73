"""`modtrain` and `python -m modtrain`: the command line as a process of its own.

Deliberately not here: the commands (`cli/`).
"""

import contextlib
import logging
import os
import sys
import threading

from modtrain.cli import main


def run() -> None:
    """Run the command line and end; at once where a tracker hangs: its package may have Python wait for it at exit."""
    try:
        main()
    except SystemExit as left:
        if not any(thread.name.startswith("tracker ") for thread in threading.enumerate()):
            raise
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(left.code if isinstance(left.code, int) else 0)


if __name__ == "__main__":
    run()
