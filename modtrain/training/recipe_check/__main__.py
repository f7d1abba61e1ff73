"""`python -m modtrain.training.recipe_check`: checks the recipe of the run.json on standard input.

Before each part, and at the end, it writes the findings so far as one JSON line; what the recipe prints goes to
standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings

import torch

from modtrain.errors import ModtrainError
from modtrain.storage.manifest import parse
from modtrain.storage.run import RunSpec
from modtrain.training.recipe_check.check import check_recipe
from modtrain.training.recipe_check.findings import Findings

THREADS = 4
"""Most threads of torch: others use a login node as well."""


def main() -> None:
    """Check, and exit with 0 also where something is found."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def report(findings: Findings) -> None:
        lines.write(json.dumps(dataclasses.asdict(findings)) + "\n")

    torch.set_num_threads(min(THREADS, torch.get_num_threads()))
    spec = parse(sys.stdin.buffer.read(), RunSpec)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_recipe(spec, report)
    except ModtrainError as error:  # the recipe itself, or its parameters
        report(Findings(violations=[str(error)]))


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # the interpreter would take PyTorch apart for half a second, while a launch waits
