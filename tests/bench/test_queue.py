"""The bench tells what it promises to measure; how long it took here is nobody's business."""

from __future__ import annotations

import re
import subprocess
import sys


def test_the_queue_is_measured_against_one_trial_and_against_no_queue() -> None:
    command = [sys.executable, "-m", "modtrain.bench", "queue", "--trials", "1", "--seconds", "0.5"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    one, same, by_hand = said.stdout.splitlines()
    assert one.endswith(" s  one trial on one slot")
    assert re.search(r" s  1 trials on 1 slots: \d+\.\d{3} times one$", same)
    assert by_hand.endswith(" s  1 workers that are started by hand")
    assert all(float(line.split()[0]) > 0.5 for line in (one, same, by_hand))
