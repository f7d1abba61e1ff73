"""Step costs: how long one optimisation step of each module takes here, as a worker of its own would do it.

Placement uses ratios of these, so a few steps on the launching machine will do. Deliberately not here: the decision.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing

import torch

from modtrain.recipe import Nets, Recipe
from modtrain.run import Run
from modtrain.trainee import Trainee
from modtrain.worker import choose_device, load_data, train_step

STEPS = 3


def step_costs(run: Run, recipe: Recipe) -> dict[str, float]:
    """Median seconds of a step by module, on this machine's device with as many threads as torch takes."""
    params, device = run.params(recipe), choose_device(run.spec.device, 0)
    trainees = [Trainee(run, recipe, params, name, device=device, writer="costs") for name in recipe.modules]
    lasts = {t.name: {e.peer: 1 for e in t.module.edges()} for t in trainees}
    nets = Nets({trainee.name: [trainee.net] for trainee in trainees}, lasts)
    with closing(load_data(recipe, run, params).train.epoch(0, seed=0)) as batches:
        batch = {name: value.to(device) for name, value in next(batches).items()}
    return {trainee.name: _median_s(trainee, nets, batch) for trainee in trainees}


def _median_s(trainee: Trainee, nets: Nets, batch: dict[str, torch.Tensor]) -> float:
    seconds = []
    for _ in range(STEPS + 1):
        nets.forget()
        begun = time.perf_counter()
        for _ in range(trainee.updates):
            losses = train_step(trainee, nets, batch)
        float(losses["loss"])  # waits for the device
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])
