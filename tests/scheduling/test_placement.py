"""Which modules share a worker: by number, by measured cost, by the recipe, or by hand."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config
from modtrain.scheduling.placement import parse, place
from modtrain.scheduling.run_plan import draft

MODULES = ["encoder_decoder", "translator", "discriminator"]
DENSE = {"encoder_decoder": 35.0, "translator": 268.0, "discriminator": 66.0}


def test_one_node_trains_everything_jointly() -> None:
    assert place(MODULES, 1, {}) == [MODULES]


def test_as_many_nodes_as_modules_give_each_its_own() -> None:
    assert place(MODULES, 3, {}) == [[module] for module in MODULES]


def test_two_nodes_group_so_that_the_slowest_worker_is_as_fast_as_possible() -> None:
    groups = {frozenset(group) for group in place(MODULES, 2, DENSE)}
    assert groups == {frozenset({"translator"}), frozenset({"encoder_decoder", "discriminator"})}
    cheap_translator = {"encoder_decoder": 60.0, "translator": 30.0, "discriminator": 25.0}
    groups = {frozenset(group) for group in place(MODULES, 2, cheap_translator)}
    assert groups == {frozenset({"encoder_decoder"}), frozenset({"translator", "discriminator"})}


def test_modules_of_a_group_keep_the_order_of_the_recipe() -> None:
    for group in place(MODULES, 2, DENSE):
        assert group == [module for module in MODULES if module in group]


def test_more_nodes_than_modules_is_an_error() -> None:
    with pytest.raises(InputError, match=r"--nodes 4 is more than the recipe's 3 modules .*at most --nodes 3"):
        place(MODULES, 4, {})


def test_zero_nodes_is_an_error() -> None:
    with pytest.raises(InputError, match="--nodes 0 is not allowed"):
        place(MODULES, 0, {})


def test_a_placement_by_hand_is_read_with_or_without_spaces() -> None:
    assert parse("translator | discriminator,encoder_decoder", MODULES) == [
        ["translator"],
        ["encoder_decoder", "discriminator"],
    ]
    assert parse("encoder_decoder,translator,discriminator", MODULES) == [MODULES]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("translater | encoder_decoder,discriminator", "Did you mean 'translator'"),
        ("translator | encoder_decoder", "check discriminator"),
        ("translator | translator,encoder_decoder,discriminator", "check translator"),
        ("translator || encoder_decoder,discriminator", "a worker has no modules"),
        ("", "check encoder_decoder, translator, discriminator"),
    ],
)
def test_an_error_in_a_placement_by_hand_is_explained(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text, MODULES)


HALVES = [["generator_ab", "discriminator_b"], ["generator_ba", "discriminator_a"]]
CYCLEGAN = ["generator_ab", "generator_ba", "discriminator_b", "discriminator_a"]


@pytest.mark.parametrize(
    ("options", "placement"),
    [
        ({}, HALVES),
        ({"nodes": 2}, HALVES),
        ({"nodes": 1}, [CYCLEGAN]),
        ({"nodes": 4}, [[module] for module in CYCLEGAN]),
        ({"place": "generator_ab,generator_ba|discriminator_b,discriminator_a"}, [CYCLEGAN[:2], CYCLEGAN[2:]]),
    ],
)
def test_a_recipe_has_its_own_placement_which_options_override(
    options: dict[str, Any], placement: list[list[str]]
) -> None:
    spec, costs = draft(Config(recipe="cyclegan", **options), load_recipe("cyclegan"))
    assert spec.placement == placement
    assert not costs, "nothing was measured"


@pytest.mark.parametrize(
    ("placement", "sentence"),
    [
        (
            "generator",
            "placement = 'generator' is not allowed; give a tuple of tuples, the modules of each worker, as in ",
        ),
        (
            (("generator",), ()),
            "is not allowed; give a tuple of tuples, the modules of each worker, as in placement=((",
        ),
        ((("generator", "judge"),), "placement names 'judge', but the recipe has generator, discriminator."),
        (
            (("generator",), ("generator", "discriminator")),
            "placement names 'generator' twice; a module is in one group.",
        ),
        ((("generator",),), "placement does not name 'discriminator'; it names every module, or is empty."),
    ],
)
def test_a_placement_of_a_recipe_that_cannot_be_is_refused(placement: Any, sentence: str, tiny_recipe: Path) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        dataclasses.replace(load_recipe(str(tiny_recipe)), placement=placement)
