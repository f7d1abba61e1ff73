"""Which modules share a worker: by number, by measured cost, or by hand."""

from __future__ import annotations

import pytest

from modtrain.errors import InputError
from modtrain.scheduling.placement import parse, place

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
