"""`python -m tests.support.store_faults SCENARIO FOLDER [OPTIONS]`: print a JSON line for each event.

It imports nothing heavy, so that its forks are cheap, and is a process of its own, so that they copy no threads.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from tests.support.store_faults import publishing, rivals

SCENARIOS = {
    **{scenario.__name__: scenario for scenario in (publishing.kill, publishing.errors)},
    **{scenario.__name__: scenario for scenario in (publishing.reading, publishing.lost)},
    **{scenario.__name__: scenario for scenario in (rivals.pause, rivals.cleaning, rivals.race)},
    **{scenario.__name__: scenario for scenario in (rivals.obey, rivals.follow)},
}

logging.disable(logging.CRITICAL)
parser = argparse.ArgumentParser()
parser.add_argument("scenario", choices=SCENARIOS)
parser.add_argument("folder", type=Path)
parser.add_argument("options", nargs="*", type=json.loads)
arguments = parser.parse_args()
for line in SCENARIOS[arguments.scenario](arguments.folder, *arguments.options):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
