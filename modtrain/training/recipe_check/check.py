"""check_recipe(spec): every part of a recipe once, in the order of a run."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch
from modtrain.errors import InputError
from modtrain.nets.noise import draw_noise
from modtrain.plugins import calling
from modtrain.recipes.base import resolve
from modtrain.recipes.contract import check_applied, check_classes, check_evaluation, check_samples
from modtrain.recipes.loading import load_recipe, params_of
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling
from modtrain.storage.run import Run, RunSpec
from modtrain.training.fixed_modules import build_fixed
from modtrain.training.inference.model import settled
from modtrain.training.learner import Learner, simultaneous_steps
from modtrain.training.peers import freeze
from modtrain.training.precision import on_any_cpu
from modtrain.training.recipe_check import batches, steps
from modtrain.training.recipe_check.findings import (
    SAMPLES,
    Findings,
    confirmed,
    first_image,
    first_samples,
    violations_in,
)
from modtrain.training.stages import RunStage, RunStages
from modtrain.training.timeline import Position
from modtrain.training.train_step import nets_of, start_step


def check_recipe(spec: RunSpec, report: Callable[[Findings], None]) -> Findings:
    """Check the recipe of a run on the CPU; `report` gets the findings before each part and at the end."""
    spec = spec.model_copy(update={"precision": on_any_cpu(spec.precision)})
    with tempfile.TemporaryDirectory() as folder:
        check = _Check(Run(Path(folder), spec), report)
        check.run()
    check.findings.part = ""
    report(check.findings)
    return check.findings


class _Check:
    """One check; its learners publish into the temporary folder of `run`."""

    def __init__(self, run: Run, report: Callable[[Findings], None]) -> None:
        self.findings = Findings()
        self._run, self._spec, self._report = run, run.spec, report
        self._recipe = load_recipe(run.spec.recipe)
        self._params = params_of(run.spec, self._recipe)
        self._last_params = params_of(run.spec, self._recipe, run.spec.all_stages[-1])
        self._learners: list[Learner] = []
        self._fixed: dict[str, nn.Module] = {}
        self._trained: dict[str, nn.Module] = {}
        self._batches: list[tuple[RunStage, Position, Batch]] = []
        """The first and the last batch of each stage."""
        self._test: Any = None

    def run(self) -> None:
        """Run all parts; those that need what could not be made are left out.

        Networks are built once the data is right, since that alone shows wrong sizes, and large ones take long.
        """
        if self._check("`data`", self._make_data):
            return
        for name in self._recipe.trained:
            self._check(f"the network or optimizer of {name}", partial(self._build, name))
        for name in self._recipe.fixed:
            self._check(f"the network or weights of {name}", partial(self._build_fixed, name))
        if self.findings.violations:
            return
        most = max([1, *(last for learner in self._learners for last in learner.reads.values())])
        nets = nets_of(self._learners, {name: [net] for name, net in self._fixed.items()}, versions=most)
        for learner in self._learners:
            if self._check(f"the schedule of {learner.name}", partial(steps.schedule, learner)):
                continue  # it would fail again
            self._check(f"the loss of {learner.name}", partial(self._train, learner, nets))
        if not self.findings.violations:
            self._check("`together`", partial(self._check_together, nets))
        if not self.findings.violations:
            for learner in self._learners:
                self._check(f"saving and loading {learner.name}", partial(_save_and_load, learner))
        networks = {t.name: t.average or t.net for t in self._learners} | self._fixed
        for name, net in networks.items():
            self._check(f"`settle` of {name}", partial(self._settle, name, net))
        if len(self._trained) < len(networks):
            return
        if self._recipe.evaluate is not None:
            self._check("`evaluate`", partial(confirmed, self._evaluate))
        if (
            self._recipe.apply is not None
            and (images := first_image([*(batch for _, _, batch in self._batches), self._test])) is not None
        ):
            self._check("`apply`", partial(self._apply, self._recipe.apply, images))
        if self._recipe.sample is not None:
            self._check("`sample`", partial(self._sample, self._recipe.sample))

    def _check(self, part: str, check: Callable[[], Iterable[str] | None]) -> list[str]:
        """Add the violations that a check finds, which are returned as well."""
        self.findings.part = part
        self._report(self.findings)
        found = violations_in(self._spec.recipe, part, check)
        self.findings.violations += found
        return found

    def _make_data(self) -> None:
        stages = RunStages(self._spec, self._recipe)
        data = stages.stages[-1].data
        if self._spec.early_stop and data.valid is None and data.test is not None:
            self.findings.warnings.append("Early stopping measures on the test data: there is no validation data.")
        self._test = data.held_out if self._spec.early_stop and data.test is None else data.test
        for stage, first, last in stages.spans():
            found = batches.first_and_last(stage.batches, self._spec.seed)
            self._batches += zip((stage, stage), (first, last), found, strict=True)
        first_stage, _, batch = self._batches[0]
        self.findings.warnings += batches.impurity(first_stage.batches, self._spec.seed, batch)

    def _build(self, name: str) -> None:
        self._learners.append(Learner(self._run, self._recipe, self._params, name, device="cpu", writer="check"))

    def _build_fixed(self, name: str) -> None:
        weights = self._spec.fixed.get(name)
        net = build_fixed(self._spec.seed, self._recipe, self._params, name, weights)
        self._fixed[name] = freeze(net, self._recipe.modules[name].frozen_mode)

    def _train(self, learner: Learner, nets: Nets) -> Iterator[str]:
        """A step on each batch, the first and the last one of each stage: they may have other shapes."""
        for stage, position, batch in self._batches:
            learner.enter(stage)
            if not learner.is_trained:  # its loss is never computed
                continue
            start_step(nets, position)
            if found := confirmed(partial(self._step, learner, nets, batch)):
                yield from found
                return
        self.findings.warnings += steps.weak_gradient(learner)

    def _step(self, learner: Learner, nets: Nets, batch: Batch, samples: int | None) -> list[str]:
        part = f"the loss of {learner.name}"
        some = {name: first_samples(value, samples) for name, value in batch.items()}
        found = violations_in(self._spec.recipe, part, partial(steps.step, learner, nets, some))
        learner.require_grad(False)  # also where its loss raised an error: the others only let gradients pass
        return found

    def _check_together(self, nets: Nets) -> Iterator[str]:
        """What is wrong with the losses of modules that are trained in one step."""
        for stage, position, batch in self._batches[::2]:
            for learner in self._learners:
                learner.enter(stage)
            for step in simultaneous_steps(self._recipe, [learner for learner in self._learners if learner.is_trained]):
                if len(step) > 1 and not self.findings.violations:
                    start_step(nets, position)
                    yield from confirmed(partial(self._share, step, nets, batch))

    def _share(self, step: Sequence[Learner], nets: Nets, batch: Batch, samples: int | None) -> list[str]:
        some = {name: first_samples(value, samples) for name, value in batch.items()}
        return violations_in(self._spec.recipe, "`together`", partial(steps.unshared_terms, step, nets, some))

    def _settle(self, name: str, net: nn.Module) -> None:
        """The network as `load` gives it."""
        module = self._recipe.modules[name]
        self._trained[name] = settled(copy.deepcopy(net), name, module, self._last_params, seed=self._spec.seed)

    def _evaluate(self, samples: int | None) -> list[str]:
        return violations_in(self._spec.recipe, "`evaluate`", partial(self._evaluate_on, samples))

    def _evaluate_on(self, samples: int | None) -> None:
        evaluate = self._recipe.evaluate
        assert evaluate is not None
        try:
            with torch.no_grad(), calling("`evaluate`", evaluate):
                evaluation = evaluate(self._nets(), first_samples(self._test, samples), self._last_params)
        except InputError as error:
            if self._test is not None:
                raise
            self.findings.warnings.append(str(error))  # data without a test set can be trained on
            return
        self.findings.metrics = list(check_evaluation(evaluation, evaluate).metrics)

    def _apply(self, function: Callable[..., Any], images: Tensor) -> None:
        with torch.no_grad(), calling("`apply`", function):
            check_applied(function(self._nets(), images.clone(), self._last_params), images, function)

    def _sample(self, sampling: Sampling) -> None:
        size, labels = resolve(sampling.noise_size, self._last_params, "noise_size", "`sample`"), None
        if sampling.classes is not None:
            dataroot = Path(self._spec.dataroot) if self._spec.dataroot else None
            names = check_classes(sampling.classes(dataroot, self._last_params), sampling.classes)
            labels = torch.arange(SAMPLES) % len(names)
        noise, function = draw_noise(SAMPLES, size, seed=self._spec.seed), sampling.generate
        with torch.no_grad(), calling("`sample`", function):
            check_samples(function(self._nets(), noise, labels, self._last_params), noise, function)

    def _nets(self) -> Nets:
        """The networks as `evaluate` and `apply` get them."""
        return Nets({name: [net] for name, net in self._trained.items()}, {})


def _save_and_load(learner: Learner) -> None:
    """Publish a full version and resume from it, as a worker does."""
    learner.publish(epoch=0, step=0, full=True, final=False)
    for checkpoint in learner.resumable().values():
        learner.resume(checkpoint, learner.read(checkpoint))
