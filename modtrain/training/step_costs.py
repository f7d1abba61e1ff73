"""Step costs: how long one optimisation step of each module takes here, as a worker of its own would do it.

Placement uses ratios of these, so a few steps on the launching machine will do. `python -m modtrain.costs` reads a
run.json on its standard input and writes the costs as JSON: the launcher's own process never trains. Deliberately not
here: the decision.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch

from modtrain.errors import ModtrainError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import data_of, params_of, recipe_of
from modtrain.recipes.nets_view import Nets
from modtrain.storage.run import Run, RunSpec
from modtrain.training.learner import Trainee
from modtrain.training.worker import train_step
from modtrain.training.worker_process import choose_device

STEPS = 3


def step_costs(run: Run, recipe: Recipe) -> dict[str, float]:
    """Median seconds of a step by module, on this machine's device with as many threads as torch takes."""
    params, device = params_of(run.spec, recipe), choose_device(run.spec.device, 0)
    trainees = [Trainee(run, recipe, params, name, device=device, writer="costs") for name in recipe.modules]
    most = max([1, *(last for trainee in trainees for last in trainee.reads.values())])
    nets = Nets({t.name: [t.net] * most for t in trainees}, {t.name: t.reads for t in trainees})
    with closing(data_of(run.spec, recipe, params).train.epoch(0, seed=0)) as batches:
        batch = {name: value.to(device) for name, value in next(batches).items()}
    return {trainee.name: _median_s(trainee, nets, batch) for trainee in trainees}


def _median_s(trainee: Trainee, nets: Nets, batch: dict[str, torch.Tensor]) -> float:
    seconds = []
    for _ in range(STEPS + 1):
        nets.forget()
        begun = time.perf_counter()
        for _ in range(trainee.updates):
            losses = train_step(trainee, nets, batch)
        float(losses["loss"].detach())  # waits for the device
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def main() -> None:
    """The costs of the run on standard input; in a folder of its own, since a trainee takes its store over."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), RunSpec.model_validate_json(sys.stdin.read()))
        try:
            costs = step_costs(run, recipe_of(run.spec))
        except ModtrainError as error:
            sys.exit(str(error))
    sys.stdout.write("\n" + json.dumps(costs) + "\n")


if __name__ == "__main__":
    main()
