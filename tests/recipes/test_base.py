"""What a recipe may be, and how a loss uses the other modules."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modtrain.data.base import Data
from modtrain.errors import InputError
from modtrain.recipes.base import Module, Reads, Recipe, check_graph, resolve
from modtrain.recipes.loading import data_of
from modtrain.recipes.nets_view import Nets
from modtrain.storage.run import RunSpec


@dataclass(frozen=True, kw_only=True)
class Params:
    opponents: int = 8


def module(**values: Any) -> Module:
    return Module(build=lambda p: nn.Identity(), loss=lambda n, b, p: {}, optimizer=lambda w, p: None, **values)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({}, "no modules"),
        ({"a b": module()}, "Module name 'a b' cannot be used"),
        *(({name: module()}, f"Module name '{name}' cannot be used") for name in ("once", "step", "progress", "stage")),
        ({"a": module(reads=("a",))}, "'a' reads itself"),
        ({"judge": module(), "maker": module(reads=("jugde",))}, "Did you mean 'judge'"),
        ({"a": module(), "b": module(reads=("a", Reads("a", last=2)))}, "'b' reads a peer twice"),
        ({"a": module(), "b": module(reads="a")}, "reads of 'b' is 'a'; give a tuple of peers, as in reads="),
        ({"a": module(), "b": module(reads=Reads("a"))}, "give a tuple of peers, as in reads="),
        ({"a": module(), "b": module(reads=(module,))}, "give a tuple of peers, as in reads="),
        ({"a": module(frozen_mode="test")}, "allowed are 'eval' and 'train'"),
        ({"a": module(infer_mode=None)}, "infer_mode of 'a' is None; allowed are 'eval' and 'train'"),
        ({"memory": module()}, "Module name 'memory' cannot be used"),
    ],
)
def test_a_graph_that_cannot_be_trained_is_refused_with_its_reason(modules: Mapping[str, Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_graph(modules)


@pytest.mark.parametrize("field", ["settle", "memory", "schedule"])
def test_what_is_no_function_is_refused_where_a_module_is_made(field: str) -> None:
    with pytest.raises(InputError, match=f"`{field}` of a module is 5, but must be a function"):
        module(**{field: 5})


def recipe(params: Any = Params, **values: Any) -> Recipe:
    return Recipe(params=params, data=lambda d, p: None, modules={"a": module()}, **values)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("names", ["fid", {"fid"}, (5,), ("",), None])
def test_lower_is_better_takes_a_tuple_of_names_and_nothing_else(names: Any) -> None:
    with pytest.raises(InputError, match="as in lower_is_better="):
        recipe(evaluate=lambda nets, test, params: None, lower_is_better=names)


class OneBatch:
    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Mapping[str, Tensor], None, None]:
        yield {"real": torch.ones(1)}


def test_data_that_misses_a_file_is_a_sentence_and_storage_that_fails_is_tried_again() -> None:
    spec = RunSpec(recipe="mine", placement=[["a"]], epochs=1)

    def data(error: OSError) -> Callable[[Path | None, Any], Data]:
        def fail(dataroot: Path | None, params: Any) -> Data:
            raise error

        return fail

    said = (
        r"^`data` of the recipe failed in .*test_base.py, line \d+, in fail: FileNotFoundError: .* with --dataroot\.$"
    )
    with pytest.raises(InputError, match=said):
        data_of(spec, replace(recipe(), data=data(FileNotFoundError(2, "No such file", "points.npy"))), None)
    with pytest.raises(OSError, match="Input/output error"):
        data_of(spec, replace(recipe(), data=data(OSError(5, "Input/output error"))), None)


def test_data_that_a_recipe_draws_is_the_same_in_every_worker_and_follows_from_the_seed() -> None:
    def drawn(seed: int) -> list[float]:
        spec = RunSpec(recipe="drawn", placement=[["a"]], epochs=1, seed=seed)
        data = data_of(spec, replace(recipe(), data=lambda dataroot, params: Data(train=OneBatch(), test=test())), None)  # type: ignore[arg-type]
        return list(data.test.flatten())

    def test() -> Tensor:
        return torch.stack([torch.randn(2), torch.from_numpy(np.random.rand(2)), torch.tensor([random.random()] * 2)])

    before, python = np.random.get_state()[1], random.getstate()
    one, again, other = drawn(1), drawn(1), drawn(2)
    assert one == again
    assert not set(one) & set(other)
    assert (np.random.get_state()[1] == before).all()
    assert random.getstate() == python


@dataclass
class Thawed:
    lr: float = 1.0


@dataclass(frozen=True)
class Untyped:
    lr: float = 1.0
    momentum = 0.9


@dataclass(frozen=True)
class Grouped:
    generator: Thawed = field(default_factory=Thawed)


@pytest.mark.parametrize(
    ("construct", "sentence"),
    [
        (
            lambda: recipe(exchange_every=0),
            "exchange_every = 0 is not allowed; it is a number of steps, at least 1, or None.",
        ),
        (lambda: recipe(epochs=0), "epochs = 0 is not allowed; it is a whole number, at least 1."),
        (
            lambda: recipe(max_staleness=-1),
            "max_staleness = -1 is not allowed; it is a number of epochs, at least 0, 'exchange', or None.",
        ),
        (
            lambda: module(updates=0),
            "updates = 0 is not allowed; it is a whole number, at least 1, or a function of the parameters.",
        ),
        (
            lambda: module(accumulate=True),
            "accumulate = True is not allowed; it is a whole number, at least 1, or a function of the parameters.",
        ),
        (
            lambda: module(ema_from=-1),
            "ema_from = -1 is not allowed; it is a number of updates, at least 0, or a function of the parameters.",
        ),
        (
            lambda: module(ema=1.5),
            "ema = 1.5 is not allowed; it is a decay in [0, 1), None, or a function of the parameters.",
        ),
        *(
            (
                lambda name=name, bound=bound: module(**{name: bound}),
                f"{name} = {bound!r} is not allowed; it is a number above 0, None, or a function of the parameters.",
            )
            for name, bound in (("clip_norm", 0), ("clip_norm", True), ("clip_value", -1.0), ("clip_value", math.inf))
        ),
        (
            lambda: module(clip_norm=1.0, clip_value=0.5),
            "A module has both clip_norm and clip_value; give one of them.",
        ),
        (
            lambda: Reads("judge", last=0),
            "last = 0 is not allowed; it is a whole number, at least 1, or a function of the parameters.",
        ),
        (lambda: module(schedule=0.5), "`schedule` of a module is 0.5, but must be a function."),
        (lambda: recipe(evaluate={"fid": 1}), "`evaluate` of a recipe is {'fid': 1}, but must be a function."),
        (
            lambda: recipe(Params()),
            "params is an object of Params, but must be the class itself: write params=Params.",
        ),
        (lambda: recipe(int), "params = int is not a dataclass; write @dataclass(frozen=True, kw_only=True)."),
        (lambda: recipe(Thawed), "Thawed is not frozen; write @dataclass(frozen=True, kw_only=True)."),
        (lambda: recipe(Grouped), "Thawed is not frozen; write @dataclass(frozen=True, kw_only=True)."),
        (
            lambda: recipe(Untyped),
            "Untyped.momentum has no type, so it is no parameter; write momentum: float = ...",
        ),
        (
            lambda: check_graph({"average": module()}),
            "Module name 'average' cannot be used; use a Python name such as 'discriminator'.",
        ),
        (
            lambda: check_graph({"class": module()}),
            "Module name 'class' cannot be used; use a Python name such as 'discriminator'.",
        ),
        (
            lambda: check_graph({"evaluation": module()}),
            "Module name 'evaluation' cannot be used; use a Python name such as 'discriminator'.",
        ),
    ],
)
def test_what_no_run_could_use_is_refused_where_it_is_constructed(construct: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        construct()
    assert str(refused.value) == sentence


def test_a_mode_of_inference_that_a_function_returns_is_checked() -> None:
    assert resolve(module(infer_mode=lambda params: "train").infer_mode, Params(), "infer_mode", "a") == "train"
    with pytest.raises(InputError, match="infer_mode of a = 'test' is not allowed; it is 'eval', 'train'"):
        resolve(module(infer_mode=lambda params: "test").infer_mode, Params(), "infer_mode", "a")


def test_lower_is_better_needs_an_evaluate() -> None:
    with pytest.raises(InputError, match="names fid, but the recipe has no `evaluate`"):
        recipe(lower_is_better=("fid",))
    assert recipe(evaluate=lambda nets, test, params: None, lower_is_better=("fid",)).lower_is_better == ("fid",)


def test_a_worker_reads_the_most_versions_that_one_of_its_modules_asks_for() -> None:
    modules = {
        "one": module(reads=("judge",)),
        "two": module(reads=(Reads("judge", last=lambda params: params.opponents),)),
        "judge": module(),
    }
    recipe = Recipe(params=Params, data=lambda d, p: None, modules=modules)  # type: ignore[arg-type, return-value]
    assert recipe.reads(["one", "two"], Params()) == {"judge": 8}
    assert recipe.reads(["one"], Params()) == {"judge": 1}
    assert recipe.reads(["one", "two", "judge"], Params()) == {}


def test_a_worker_exchanges_inside_an_epoch_only_what_other_workers_read() -> None:
    modules = {"maker": module(reads=("judge",)), "judge": module(reads=("maker",)), "coder": module(reads=("judge",))}
    recipe = Recipe(params=Params, data=lambda d, p: None, modules=modules)  # type: ignore[arg-type, return-value]
    assert recipe.read_by_others(["maker"]) == {"maker"}
    assert recipe.read_by_others(["maker", "judge"]) == {"judge"}
    assert recipe.read_by_others(["coder"]) == recipe.read_by_others(["maker", "judge", "coder"]) == set()


class Counting(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


@pytest.fixture
def nets() -> Nets:
    lasts = {"generator": {"judge": 2}, "judge": {"generator": 1}}
    return Nets(
        {"generator": [Counting(2, 2)], "judge": [Counting(2, 1), Counting(2, 1)], "other": [Counting(1, 1)]}, lasts
    )


def shared(nets: Nets) -> Tensor:
    return nets.once("fake", lambda: nets.generator(torch.ones(1, 2)))


def test_a_value_that_the_generator_computes_for_its_loss_serves_the_judge_without_its_graph(nets: Nets) -> None:
    nets.enter("generator")
    with_graph = shared(nets)
    nets.enter("judge")
    values = shared(nets)
    assert nets.generator.calls == 1
    assert with_graph.grad_fn is not None
    assert values.grad_fn is None
    assert torch.equal(values, with_graph)


def test_a_memory_is_reached_in_the_loss_of_its_own_module_and_nowhere_else() -> None:
    memory = object()
    nets = Nets({"judge": [Counting(2, 1)], "generator": [Counting(2, 2)]}, {}, {"judge": memory, "generator": None})
    nets.enter("judge")
    assert nets.memory is memory
    with pytest.raises(InputError, match=r"The loss of 'judge' uses nets\.memory inside of nets\.once"):
        nets.once("fake", lambda: nets.memory.query())
    nets.enter("generator")
    with pytest.raises(InputError, match=r"the module has none; give 'generator' a `memory`"):
        _ = nets.memory
    nets.enter(None)
    with pytest.raises(InputError, match=r"nets\.memory is used outside of a loss"):
        _ = nets.memory


def test_a_generator_that_comes_after_the_judge_still_gets_its_graph(nets: Nets) -> None:
    nets.enter("judge")
    assert shared(nets).grad_fn is None
    nets.enter("generator")
    assert shared(nets).grad_fn is not None


def test_a_shared_value_is_computed_again_for_the_next_batch(nets: Nets) -> None:
    nets.enter("judge")
    shared(nets)
    shared(nets)
    assert nets.generator.calls == 1
    nets.forget()
    shared(nets)
    assert nets.generator.calls == 2


def test_a_shared_value_that_was_made_from_another_shared_value_keeps_its_graph(nets: Nets) -> None:
    def doubled() -> Tensor:
        return nets.once("doubled", lambda: 2 * shared(nets))

    nets.enter("judge")
    assert doubled().grad_fn is None
    nets.enter("generator")
    assert doubled().grad_fn is not None


def test_average_is_over_the_versions_that_the_edge_asks_for(nets: Nets) -> None:
    nets.enter("generator")
    x = torch.ones(1, 2)
    mean = nets.average("judge", lambda judge: judge(x).sum())
    every = nets._versions["judge"]
    assert torch.allclose(mean, sum(judge(x).sum() for judge in every) / 2)  # type: ignore[arg-type]


def test_using_an_undeclared_module_is_an_error_that_names_reads(nets: Nets) -> None:
    nets.enter("generator")
    with pytest.raises(InputError, match=r"'generator' uses 'other'.*`reads` of 'generator'"):
        nets.other(torch.ones(1, 1))


@pytest.mark.parametrize("name", ["step", "progress", "stage", "stage_progress"])
def test_outside_of_training_there_is_no_step(nets: Nets, name: str) -> None:
    with pytest.raises(InputError, match=rf"nets\.{name} is used outside of a loss.*have no {name}\. Give what"):
        getattr(nets, name)
    nets.start_step(step=3, progress=0.25, stage="fade", stage_progress=0.5)
    assert {"step": 3, "progress": 0.25, "stage": "fade", "stage_progress": 0.5}[name] == getattr(nets, name)


def test_outside_of_training_every_module_may_be_used(nets: Nets) -> None:
    assert nets.other(torch.ones(1, 1)).shape == (1, 1)
    with pytest.raises(AttributeError, match=r"no module 'nothing'; use one of generator, judge, other"):
        nets.nothing  # noqa: B018
