"""Step costs: seconds of one optimisation step of each module on this machine, as a worker of its own would need.

Placement only uses ratios of these, so a few steps on the launching machine are enough. Run as a process of its own,
`python -m modtrain.training.step_costs`: reads a run.json from standard input and writes the costs as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from modtrain.data.base import Batch
from modtrain.errors import ModtrainError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import params_of, recipe_of
from modtrain.recipes.nets_view import Nets
from modtrain.storage.manifest import parse
from modtrain.storage.run import Run, RunSpec
from modtrain.training.fixed_modules import fixed_peers
from modtrain.training.learner import Learner, choose_device
from modtrain.training.precision import on_any_cpu
from modtrain.training.stages import RunStages
from modtrain.training.timeline import Position
from modtrain.training.train_step import batches_of, nets_of, start_step, to_device, train_step

STEPS = 3
"""Measured steps of each module, after one that is not measured."""


def step_costs(run: Run, recipe: Recipe) -> dict[str, float]:
    """Least seconds of a step by module, of three, on the run's device and with torch's default number of threads.

    Of a module that is not trained in all stages, or not with the same parameters, the mean over the steps of the run.
    """
    params, device = params_of(run.spec, recipe), choose_device(run.spec.device)
    if device == "cpu":
        run = replace(run, spec=run.spec.model_copy(update={"precision": on_any_cpu(run.spec.precision)}))
    learners = [Learner(run, recipe, params, name, device=device, writer="costs") for name in recipe.trained]
    most_versions = max([1, *(last for learner in learners for last in learner.reads.values())])
    fixed = fixed_peers(run, recipe, params, recipe.trained, device)
    nets = nets_of(learners, fixed, versions=most_versions)
    stages, costs = RunStages(run.spec, recipe), dict.fromkeys(recipe.trained, 0.0)
    for stage, first, last in stages.spans():
        with closing(stage.batches.epoch(first.epoch, seed=0)) as epoch:
            batches = {number: to_device(next(epoch), device) for number in range(stage.draws)}
        share = (last.step + 1 - first.step) / stages.timeline.steps
        positions = [stages.timeline.at(min(first.step + number, last.step)) for number in range(STEPS + 1)]
        for learner in learners:
            learner.enter(stage)
            costs[learner.name] += share * _step_s(learner, nets, batches, positions) if learner.is_trained else 0.0
    return costs


def _step_s(learner: Learner, nets: Nets, batches: Mapping[int, Batch], positions: Sequence[Position]) -> float:
    seconds = []
    for position in positions:  # the first one often has what is due every few steps, such as a lazy penalty
        start_step(nets, position)
        nets.forget()
        start = time.perf_counter()
        for update in range(learner.updates):
            (scalars,) = train_step([learner], nets, batches_of(update, learner, batches))
        float(scalars["loss"].detach())  # waits for the device
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])  # what other processes take of a busy machine is no cost of the module


def main() -> None:
    """Measure the run on standard input, in a temporary folder, since a learner takes its checkpoint store over."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), parse(sys.stdin.buffer.read(), RunSpec))
        try:
            costs = step_costs(run, recipe_of(run))
        except ModtrainError as error:
            sys.exit(str(error))
    sys.stdout.write("\n" + json.dumps(costs) + "\n")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # the interpreter would take PyTorch apart for half a second, while a launch waits
