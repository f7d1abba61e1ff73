"""Parameters from outside: what is accepted, and the error message where it is not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from modtrain.errors import InputError
from modtrain.recipes.params import REQUIRED, as_values, build_params, parameters, with_settings
from modtrain.storage.strict_yaml import read_yaml


@checked(frozen=True, kw_only=True)
class Net:
    lr: float = Field(default=1e-3, gt=0, description="learning rate")
    norm: Literal["none", "instance"] = "none"


@dataclass(frozen=True, kw_only=True)
class Params:
    widths: tuple[int, ...] = (8, 16)
    name: str | None = None
    flip: bool = True
    steps: int = field(default=3, metadata={"meaning": "how many"})
    net: Net = field(default_factory=Net)


@dataclass(frozen=True, kw_only=True)
class Needy:
    must: int


def error_of(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        build_params(Params, values)
    return str(caught.value)


def test_every_parameter_is_described_with_its_type_default_and_meaning() -> None:
    by_name = {p.name: (p.type, p.default, p.meaning) for p in parameters(Params)}
    assert by_name == {
        "widths": ("tuple[int, ...]", (8, 16), ""),
        "name": ("str | null", None, ""),
        "flip": ("bool", True, ""),
        "steps": ("int", 3, "how many"),
        "net.lr": ("float", 1e-3, "learning rate"),
        "net.norm": ("none | instance", "none", ""),
    }
    assert next(parameters(Needy)).default is REQUIRED


def test_a_parameter_without_a_default_must_be_given() -> None:
    with pytest.raises(InputError, match="must has no default"):
        build_params(Needy, {})


def test_values_become_one_object_and_plain_values_again() -> None:
    built = build_params(Params, {"widths": [1, 2], "net": {"lr": "1e-2"}})
    assert built == dataclasses.replace(Params(), widths=(1, 2), net=Net(lr=0.01))
    assert as_values(built)["net"] == {"lr": 0.01, "norm": "none"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nett": {"lr": 1}}, "Did you mean 'net.lr'?"),
        ({"net": {"rl": 1}}, "Did you mean 'net.lr'?"),
        ({"lr": 1}, "Did you mean 'net.lr'?"),
        ({"net": 3}, "net is a group; it has net.lr, net.norm"),
        ({"steps": {"a": 1}}, "There is no parameter 'steps.a'"),
        ({"net": {"lr": float("nan")}}, "net.lr = nan is not allowed"),
        ({"net": {"lr": float("inf")}}, "net.lr = inf is not allowed: it must be a finite number"),
        ({"net": {"lr": -1}}, "net.lr = -1 is not allowed: give a number greater than 0"),
        ({"net": {"lr": True}}, "net.lr = true is not allowed: it takes a number"),
        ({"net": {"norm": "batch"}}, "net.norm = 'batch' is not allowed: give 'none' or 'instance'"),
        ({"steps": 1.5}, "steps = 1.5 is not allowed"),
        ({"steps": None}, "steps = None is not allowed"),
        ({"widths": [1, "x"]}, "widths.1 = 'x' is not allowed"),
        ({"flip": "maybe"}, "flip = 'maybe' is not allowed"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(values: dict[str, Any], sentence: str) -> None:
    assert sentence in error_of(values)


def test_settings_replace_values() -> None:
    before = {"net": {"lr": 1, "norm": "none"}, "steps": 1}
    after = with_settings(before, ["net.lr=1e-4", "name=a=b", "widths=[1, 2]", "steps=null", "flip=false"])
    assert after == {
        "net": {"lr": 1e-4, "norm": "none"},
        "name": "a=b",
        "widths": [1, 2],
        "steps": None,
        "flip": False,
    }
    assert before == {"net": {"lr": 1, "norm": "none"}, "steps": 1}


@pytest.mark.parametrize("setting", ["lr", "=1", ".lr=1", "net.=1", "net..lr=1", ""])
def test_a_setting_without_name_or_value_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match="name=value"):
        with_settings({}, [setting])


def test_a_setting_inside_of_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="'steps' is a value"):
        with_settings({"steps": 1}, ["steps.a=2"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-3", -3),
        ("007", 7.0),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("'1'", "1"),
        ("r1+r2", "r1+r2"),
        ("{a: [1, null]}", {"a": [1, None]}),
    ],
)
def test_yaml_is_version_1_2_except_for_texts_that_look_like_dates_and_times(text: str, value: object) -> None:
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)


def test_a_name_given_twice_is_an_error() -> None:
    with pytest.raises(yaml.YAMLError, match="'a' is given twice"):
        read_yaml("a: 1\nb: 2\na: 3\n")


def test_the_meaning_may_be_in_the_annotation() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Annotating:
        lr: Annotated[float, Field(gt=0, description="learning rate")] = 1e-3

    (lr,) = parameters(Annotating)
    assert (lr.name, lr.type, lr.default, lr.meaning) == ("lr", "float", 1e-3, "learning rate")
    with pytest.raises(InputError, match=r"lr = 0 is not allowed"):
        build_params(Annotating, {"lr": 0})
