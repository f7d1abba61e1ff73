"""Initial versions: version 0 of the modules of a run that no worker has trained yet, so that they can be used."""

from __future__ import annotations

import uuid

from modtrain.recipes.loading import params_of, recipe_of
from modtrain.storage.run import Run
from modtrain.training.learner import Learner, derived_seed
from modtrain.training.random_state import kept_random_state, seed_all


def publish_initial_versions(run: Run) -> None:
    """Publish version 0 of every module, with the run's initial weights, as its workers would before their first step.

    InputError where initial weights do not fit; OSError where storage fails.
    """
    recipe = recipe_of(run)
    params, writer = params_of(run.spec, recipe), uuid.uuid4().hex
    with kept_random_state():
        for modules in run.spec.placement:
            learners = [Learner(run, recipe, params, name, device="cpu", writer=writer) for name in modules]
            seed_all(derived_seed(run.spec.seed, "worker " + " ".join(modules)))
            for learner in learners:
                if weights := run.weights_of(learner.name):
                    learner.initialise(weights)
                learner.publish(epoch=0, step=0, full=True, final=False)
