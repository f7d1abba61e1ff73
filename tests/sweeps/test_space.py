"""The space of a sweep: how it is written, the errors where it is wrong, and the points that are drawn."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtrain.errors import InputError
from modtrain.sweeps.space import (
    SAMPLERS,
    Choices,
    Dimension,
    Range,
    Space,
    as_json,
    corners,
    from_json,
    parse_vary,
    point,
    read_space,
    resolve,
    size,
)
from modtrain.sweeps.sweep import trial_config

PARAMETERS = ["batch_size", "conv", "translator.lr", "translator.opponents", "discriminator.lr", "discriminator.norm"]


@dataclasses.dataclass
class Translator:
    lr: float = 1e-4
    opponents: Any = 1


@dataclasses.dataclass
class Discriminator:
    lr: float = 1e-4
    norm: str = "no"


@dataclasses.dataclass
class Params:
    """Has PARAMETERS."""

    translator: Translator
    discriminator: Discriminator
    batch_size: int | None = None
    conv: str = "dense"


VARIED = ["translator.lr=log:1e-5..1e-2:3", "translator.opponents=1,3,8", "ema=0.0..1.0:2", "seed=1..3"]


def vary(text: str) -> Dimension:
    """How `--vary x=text` is read."""
    return parse_vary([f"x={text}"])["x"]


def write_space(tmp_path: Path, text: str) -> Space:
    (tmp_path / "space.yaml").write_text(text)
    return read_space(tmp_path / "space.yaml")


def points(space: Space, sampler: str, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    return [point(space, sampler, seed=seed, index=index) for index in range(count)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.005,0.01,0.02", (0.005, 0.01, 0.02)),
        ("1e-4, 2", (1e-4, 2)),
        ("lsgan, hinge", ("lsgan", "hinge")),
        ("true,false,null,no", (True, False, None, "no")),
        ("'a,b',\"1\",'1..3'", ("a,b", "1", "1..3")),
        ("[1, 2],[3]", ([1, 2], [3])),
        ("r1+r2", ("r1+r2",)),
        ("0,false", (0, False)),
    ],
)
def test_choices_are_read_as_set_reads_values(text: str, values: tuple[Any, ...]) -> None:
    read = vary(text)
    assert isinstance(read, Choices)
    assert [(type(value), value) for value in read.choices] == [(type(value), value) for value in values]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1..3", Range(low=1, high=3)),
        ("-2..2", Range(low=-2, high=2)),
        ("0.1..0.9", Range(low=0.1, high=0.9)),
        ("1..2.5", Range(low=1, high=2.5)),
        (" 1e-5 .. 1e-2 ", Range(low=1e-5, high=1e-2)),
        ("log:1e-5..1e-2", Range(low=1e-5, high=1e-2, log=True)),
        ("log:1..64:7", Range(low=1, high=64, log=True, count=7)),
        ("0.0..1.0:5", Range(low=0.0, high=1.0, count=5)),
    ],
)
def test_a_range_is_logarithmic_only_where_it_is_marked_so(text: str, meant: Range) -> None:
    assert vary(text) == meant


@pytest.mark.parametrize("text", ["", "x", "x=", "x= ", "=1", "a..b=1", ".x=1"])
def test_vary_without_name_or_values_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--vary takes name=values, such as .*; got "):
        parse_vary([text])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2,", "it ends with a comma"),
        ("1,,2", "not a list of values with commas between"),
        ("'a", "not a list of values with commas between"),
        ("1], 2, [3", "not a list of values with commas between"),
        ("1,2,1.0", "1.0 occurs twice"),
        ("a,a", "'a' occurs twice"),
        (".nan", "nan is not a number, text,"),
        ("{a: 1}", "{'a': 1} is not a number, text,"),
        ("&a [*a]", "not a list of values"),
        ("1..3,7", "a range is low..high without commas"),
        ("../data", "put text with dots in quotes"),
        ("1..x", "a range is low..high without commas"),
        ("1..", "a range is low..high without commas"),
        ("log:5", "a range is low..high without commas"),
        ("log:1,2", "a range is low..high without commas"),
        ("3..1", "the low end 3 is not below the high end 1"),
        ("1..1", "the low end 1 is not below the high end 1"),
        ("log:0.0..1.0", "starts at more than 0, not at 0.0"),
        ("log:0..8", "starts at 1, not at 0"),
        ("0.0..1.0:1", "1 points are not allowed; take 2"),
        ("1..3:5", "fewer than 5 whole numbers from 1 to 3"),
        ("0..99999999999999999999", "is too wide"),
        ("0.0..1e308", "is too wide"),
        ("1...inf", "a range is low..high without commas"),
    ],
)
def test_a_wrong_vary_is_named_with_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        vary(text)
    assert str(caught.value).startswith(f"--vary x={text} is not allowed: ")
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_name_is_varied_once_and_its_spelling_with_dashes_is_the_same() -> None:
    assert list(parse_vary(["batch-size=4,8", "seed=1"])) == ["batch_size", "seed"]
    with pytest.raises(InputError, match="--vary batch_size is given twice"):
        parse_vary(["batch-size=4,8", "batch_size=16"])


def test_a_space_file_has_lists_ranges_and_groups(tmp_path: Path) -> None:
    text = """
        translator.lr: {low: 1.0e-5, high: 1e-2, log: true}
        translator: {opponents: [1, 3, 8], deep: {ema: {choices: [0, 0.9]}}}
        batch-size: {low: 1, high: 8, count: 4}
        seed: 1..3
        widths: [[1, 2], [3]]
    """
    assert write_space(tmp_path, text) == {
        "translator.lr": Range(low=1e-5, high=1e-2, log=True),
        "translator.opponents": Choices((1, 3, 8)),
        "translator.deep.ema": Choices((0, 0.9)),
        "batch_size": Range(low=1, high=8, count=4),
        "seed": Range(low=1, high=3),
        "widths": Choices(([1, 2], [3])),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lr: 0.1", "lr in the space {} is not allowed: 0.1 is one value; take a list of choices in brackets"),
        ("lr: 0.1, 0.2", "lr in the space {} is not allowed: '0.1, 0.2' is one value"),
        ("lr: []", "lr in the space {} is not allowed: there is no value to choose."),
        ("lr: {}", "lr in the space {} is not allowed: a range has low and high; low and high is missing."),
        ("lr: {low: 1}", "a range has low and high; high is missing."),
        ("lr: {low: 1, high: 2, cuont: 3}", "'cuont' is not allowed there; take low, high, log, count."),
        ("lr: {low: 1, high: 2, cuont: 3}", "Did you mean 'count'?"),
        ("lr: {choices: [1], log: true}", "'log' is not allowed there; take choices."),
        ("lr: {choices: 1}", "choices = 1 is not a list."),
        ("lr: {low: a, high: 2}", "low = 'a' is not a number."),
        ("lr: {low: 1, high: true}", "high = True is not a number."),
        ("lr: {low: 1, high: .inf}", "high = inf is not a number."),
        ("lr: {low: 1, high: 2, log: 1}", "log = 1 is neither true nor false."),
        ("lr: {low: 1.0, high: 2.0, count: 2.5}", "2.5 points are not allowed; take 2 (both ends) or more."),
        ("t: {lr: [1, 1]}", "t.lr in the space {} is not allowed: 1 occurs twice."),
        ("t: {lr: [1]}\nt.lr: [2]", "The space {} has t.lr twice; leave one of them out."),
        ("lr: [1]\nlr: [2]", "The space {} is not YAML: line 1, column 1: 'lr' is given twice"),
        ("- 1", "The space {} must hold names and values"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        write_space(tmp_path, text)
    assert sentence.format(tmp_path / "space.yaml") in str(caught.value)


def test_a_missing_space_file_is_an_error_that_names_a_similar_one(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").touch()
    with pytest.raises(InputError, match=r"cannot be read: .* Did you mean 'space.yaml'\?"):
        read_space(tmp_path / "spaces.yaml")


def test_a_name_means_a_parameter_or_all_of_that_last_part_or_a_field_of_the_run() -> None:
    assert resolve(["translator.lr", "seed", "norm"], PARAMETERS) == {
        "translator.lr": ("translator.lr",),
        "seed": (),
        "norm": ("discriminator.norm",),
    }
    assert resolve(["lr"], PARAMETERS) == {"lr": ("translator.lr", "discriminator.lr")}
    assert resolve(["size"], ["size", "part.size"]) == {"size": ("size",)}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["translator.rl"], "There is no parameter 'translator.rl' to vary; the recipe has batch_size, conv"),
        (
            ["translator.rl"],
            "and a run has seed, epochs, exchange_every, max_staleness, precision. Did you mean 'translator.lr'?",
        ),
        (["oponents"], "Did you mean 'opponents'?"),
        (["sead"], "Did you mean 'seed'?"),
        (["translator"], "translator is a group of parameters and cannot be varied itself; it has translator.lr"),
        (["lr", "translator.lr"], "translator.lr is varied twice, by 'lr' and by 'translator.lr'; leave one of them"),
        (["backend"], "There is no parameter 'backend' to vary"),
    ],
)
def test_a_name_that_means_nothing_or_twice_the_same_is_refused(names: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(names, PARAMETERS)
    assert sentence in str(caught.value)


def test_a_learning_rate_of_another_name_is_named() -> None:
    with pytest.raises(InputError, match=r"Its learning rates are generator_lr, discriminator_lr\."):
        resolve(["lr"], ["generator_lr", "discriminator_lr", "penalty"])


def test_a_point_is_what_a_config_takes_with_every_value_as_it_was_drawn() -> None:
    values = {"lr": 1e-05, "conv": "1", "seed": 3, "batch_size": None, "discriminator.norm": "no", "max_staleness": 0}
    values |= {"translator.opponents": [1, "a=b, 'ü😀", True]}
    config = trial_config({}, values, Params)
    assert (config.seed, config.max_staleness) == (3, 0)
    assert config.params == {
        "batch_size": None,
        "conv": "1",
        "translator": {"lr": 1e-05, "opponents": [1, "a=b, 'ü😀", True]},
        "discriminator": {"lr": 1e-05, "norm": "no"},
    }


def test_corners_show_every_choice_and_both_ends_without_the_product() -> None:
    shown = list(corners(parse_vary(["a=1,2,3", "b=0.5..0.7", "c=x"])))
    assert {(p["a"]) for p in shown} == {1, 2, 3}
    assert {(p["b"]) for p in shown} == {0.5, 0.7}
    assert len(shown) == 4
    assert all(list(p) == ["a", "b", "c"] for p in shown)


def test_a_grid_is_every_combination_and_the_last_name_varies_fastest() -> None:
    space = parse_vary(["lr=0.005,0.01,0.02", "seed=1..3", "conv=a,b"])
    assert size(space) == 18
    combinations = itertools.product([0.005, 0.01, 0.02], [1, 2, 3], ["a", "b"])
    assert [tuple(p.values()) for p in points(space, "grid", 18)] == list(combinations)
    assert list(point(space, "grid", seed=0, index=7)) == ["lr", "seed", "conv"]
    for index in (18, -1):
        with pytest.raises(InputError, match=rf"The grid has 18 points, numbered from 0; there is no point {index}\."):
            point(space, "grid", seed=0, index=index)


def test_a_grid_takes_points_of_a_range_with_both_ends() -> None:
    def taken(text: str) -> list[Any]:
        space = parse_vary([f"x={text}"])
        return [p["x"] for p in points(space, "grid", size(space))]

    assert taken("0.0..1.0:5") == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert taken("log:1e-5..1e-2:4") == [1e-5, 1e-4, 1e-3, 1e-2]
    assert taken("0.123456789..1.0:2") == [0.123456789, 1.0]
    assert taken("2..5") == [2, 3, 4, 5]
    assert taken("log:1..64:7") == [1, 2, 4, 8, 16, 32, 64]
    assert taken("log:1..8:8") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert taken("log:1..1000:4") == [1, 10, 100, 1000]
    assert taken("0..9:4") == [0, 3, 6, 9]
    assert all(isinstance(value, int) for value in taken("log:1..64:7"))


@pytest.mark.parametrize("text", ["lr=0.0..1.0", "lr=log:1e-5..1e-2", "lr=log:1..64"])
def test_a_grid_without_a_count_says_how_to_give_one(text: str) -> None:
    with pytest.raises(
        InputError, match=r"A grid needs a number of points of lr: add `count: 5` .* or take --sampler random"
    ):
        size(parse_vary(["seed=1..3", text]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_point_is_the_same_in_every_process_and_order(sampler: str) -> None:
    code = f"""if True:
        import json
        from modtrain.sweeps.space import parse_vary, point
        space = parse_vary({VARIED!r})
        drawn = {{i: point(space, {sampler!r}, seed=7, index=i) for i in reversed(range(40))}}
        print(json.dumps([drawn[i] for i in range(40)]))
    """
    here = points(parse_vary(VARIED), sampler, 40, seed=7)
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        )
        assert json.loads(there.stdout) == here
    assert len({json.dumps(drawn) for drawn in here}) > 20


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_seeds_draw_different_points_and_a_far_one_takes_no_memory(sampler: str) -> None:
    space = parse_vary(["x=0.0..1.0", "y=0.0..1.0"])
    drawn = [{tuple(p.values()) for p in points(space, sampler, 64, seed=seed)} for seed in (1, 2)]
    assert not drawn[0] & drawn[1]
    tracemalloc.start()
    far = [point(space, sampler, seed=1, index=1_000_000 + more) for more in range(64)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert len({tuple(p.values()) for p in far}) == 64


def test_sobol_points_drawn_one_by_one_are_one_sequence() -> None:
    from scipy.stats.qmc import Sobol

    space = parse_vary(["x=0.0..1.0", "y=0.0..1.0"])
    sequence = Sobol(2, scramble=True, rng=5).random(64)
    for drawn, expected in zip(points(space, "sobol", 64, seed=5), sequence.tolist(), strict=True):
        assert list(drawn.values()) == pytest.approx(expected, abs=1e-6)


def test_sobol_fills_every_sixteenth_once_where_random_leaves_gaps() -> None:
    space = parse_vary(["x=0.0..1.0", "y=log:1e-4..1.0", "z=1..16"])
    for seed in range(5):
        strata = {"sobol": [set(), set(), set()], "random": [set(), set(), set()]}
        for sampler, filled in strata.items():
            for p in points(space, sampler, 16, seed=seed):
                filled[0].add(int(p["x"] * 16))
                filled[1].add(int((math.log10(p["y"]) + 4) * 4))
                filled[2].add(p["z"])
        assert [len(filled) for filled in strata["sobol"]] == [16, 16, 16]
        assert max(len(filled) for filled in strata["random"]) < 16


def test_ranges_are_drawn_evenly_by_size_or_by_magnitude_and_choices_in_equal_parts() -> None:
    space = parse_vary(["even=0.0..1.0", "log=log:1e-4..1.0", "whole=1..4", "wholelog=log:1..64", "choice=a,b,c,d"])
    drawn = points(space, "sobol", 512)
    for share in (
        [p["even"] < 0.25 for p in drawn],
        [p["log"] < 1e-3 for p in drawn],
        [p["whole"] == 4 for p in drawn],
        [p["choice"] == "b" for p in drawn],
    ):
        assert 0.23 < sum(share) / 512 < 0.27
    assert 0.45 < sum(p["wholelog"] <= 8 for p in drawn) / 512 < 0.65
    assert 0.2 < sum(p["wholelog"] == 1 for p in drawn) / 512 < 0.25, "its share of the magnitudes from 0.5 to 64.5"
    assert max(p["wholelog"] for p in drawn) == 64
    assert {p["whole"] for p in drawn} == {1, 2, 3, 4}


bounds = st.tuples(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6)) | st.tuples(
    st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)
)
plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = sorted(draw(bounds.filter(lambda pair: pair[0] != pair[1])))
    log = draw(st.booleans()) and (low >= 1 if isinstance(low, int) else low > 0)
    most = int(high - low + 1) if isinstance(low, int) else 50
    return Range(low=low, high=high, log=log, count=draw(st.none() | st.integers(2, min(most, 50))))


@given(ranges(), st.floats(0, 1, exclude_max=True))
def test_nothing_is_drawn_outside_of_a_range_and_whole_numbers_stay_whole(dimension: Range, share: float) -> None:
    taken = [dimension.at(share), *(dimension.points or ())[:50]]
    assert all(dimension.low <= value <= dimension.high for value in taken)
    assert {type(value) for value in taken} == {int if dimension.integer else float}
    assert dimension.at(0) <= dimension.at(share) <= dimension.at(math.nextafter(1, 0))
    if dimension.count:
        assert taken[1:] == sorted(taken[1:])
        assert (taken[1], taken[-1]) == (dimension.low, dimension.high)
        assert len(set(taken[1:])) == dimension.count or not dimension.integer


@given(st.lists(ranges() | st.lists(plain, min_size=1, max_size=1).map(lambda v: Choices(tuple(v))), max_size=4))
def test_a_space_comes_back_from_json_with_its_order_and_its_points(dimensions: list[Dimension]) -> None:
    space: Space = {f"z{9 - place}": dimension for place, dimension in enumerate(dimensions)}
    text = json.dumps(as_json(space), sort_keys=True, allow_nan=False)
    back = from_json(json.loads(text))
    assert list(back.items()) == list(space.items())
    assert points(back, "random", 3) == points(space, "random", 3)


def test_neither_numbers_nor_optuna_are_loaded_before_they_are_needed() -> None:
    heavy = ("numpy", "scipy", "optuna", "torch", "ray")
    code = (
        "import sys; from modtrain.sweeps.space import parse_vary, point; from modtrain.sweeps.study import Study\n"
        "Study(parse_vary(['x=1..3']), sampler='grid', seed=0).ask(2)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"
