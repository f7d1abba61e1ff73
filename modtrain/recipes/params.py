"""Parameters from outside: a config's mapping and `--set a.b=value` become one validated, frozen Params object.

Values are YAML 1.2: `1e-4` is a number, and only `true` and `false` are booleans, so `norm=no` stays text. Meaning and
default of a parameter stand once, in the recipe.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic import dataclasses as pydantic_dataclasses
from pydantic.fields import FieldInfo

from modtrain.errors import InputError, did_you_mean
from modtrain.storage.strict_yaml import read_value

REQUIRED = dataclasses.MISSING
"""Marks a parameter without a default."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter's dotted name, type, default and meaning, as `modtrain recipes` lists them."""

    name: str
    type: str
    default: Any
    meaning: str


def parameters(params: Any, prefix: str = "") -> Iterator[Parameter]:
    """Every parameter of a Params class, nested ones with dotted names, in the order of the recipe."""
    for item in dataclasses.fields(params):
        name, field = prefix + item.name, _fields(params)[item.name]
        if dataclasses.is_dataclass(field.annotation) and isinstance(field.annotation, type):
            yield from parameters(field.annotation, name + ".")
        else:
            default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
            meaning = field.description or str(item.metadata.get("meaning", ""))
            yield Parameter(name=name, type=type_name(field.annotation), default=default, meaning=meaning)


def type_name(hint: Any) -> str:
    """A type in the words of a config file: `float`, `dense | separable`, `int | null`."""
    if hint is type(None):
        return "null"
    if get_origin(hint) is Annotated:
        return type_name(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(type_name(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " | ".join(str(value) for value in get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def check_params_class(params: Any) -> None:
    """InputError where a class cannot hold the parameters of a recipe."""
    if not isinstance(params, type):
        name = type(params).__name__
        raise InputError(f"params is an object of {name}, but must be the class itself: write params={name}.")
    if not dataclasses.is_dataclass(params):
        raise InputError(f"params = {params.__name__} is not a dataclass; write @dataclass(frozen=True, kw_only=True).")
    config = getattr(params, "__pydantic_config__", {}) or {}
    if not (params.__dataclass_params__.frozen or config.get("frozen")):  # type: ignore[attr-defined]
        raise InputError(f"{params.__name__} is not frozen; write @dataclass(frozen=True, kw_only=True).")
    names = {item.name for item in dataclasses.fields(params)}
    for name, value in vars(params).items():
        is_setting = isinstance(value, FieldInfo | dataclasses.Field | bool | int | float | str | None)
        if is_setting and name.islower() and not name.startswith("_") and name not in names:
            raise InputError(f"{params.__name__}.{name} has no type, so it is no parameter; write {name}: float = ...")
    for field in _fields(params).values():
        if dataclasses.is_dataclass(field.annotation):
            check_params_class(field.annotation)


def build_params(params: type[Any], values: Mapping[str, Any]) -> Any:
    """The Params object of nested `values`; InputError names each wrong value and what is allowed."""
    _check_names([parameter.name for parameter in parameters(params)], values)
    try:
        built = TypeAdapter(params).validate_python(dict(values))
    except ValidationError as error:
        raise InputError(" ".join(sentence(item) for item in error.errors())) from None
    _check_values(values, dataclasses.asdict(built))
    return built


def as_values(params: Any) -> dict[str, Any]:
    """The nested plain values of a Params object, as they stand in run.json."""
    return dict(TypeAdapter(type(params)).dump_python(params, mode="json"))


def with_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`values` with each `a.b=value` of `settings` applied; values are YAML (1e-4, true, null, [1, 2], text)."""
    result = dict(values)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not all(name.strip().split(".")):
            raise InputError(f"--set takes name=value, such as translator.lr=1e-4; got {setting!r}.")
        result = with_values(result, {name: read_value(text)})
    return result


def with_values(values: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `values` with those of `flat`, by dotted names, in their place."""
    result = dict(values)
    for name, value in flat.items():
        *folders, last = name.strip().split(".")
        place = result
        for folder in folders:
            inner = place.get(folder, {})
            if not isinstance(inner, Mapping):
                raise InputError(f"{name!r} cannot be set: {folder!r} is a value, not a group of parameters.")
            place[folder] = place = dict(inner)
        place[last] = value
    return result


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All leaves of nested mappings, by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def sentence(error: Any) -> str:
    """One error message from an item of pydantic's `ValidationError.errors()`."""
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and not error["loc"]:  # `__post_init__` names the values itself
        return f"{message.rstrip('.')}."
    name = ".".join(str(part) for part in error["loc"]) or "The parameters"
    if error["type"] == "missing":
        return f"{name} has no default: give it, as in --set {name}=..."
    if allowed := re.match(r"Input should be (.*?)(, unable to .*)?$", message):
        message = f"give {'a number ' if allowed[1].startswith(('greater', 'less')) else ''}{allowed[1]}"
    return f"{name} = {error['input']!r} is not allowed: {message[:1].lower()}{message[1:]}."


def parameters_meant(name: str, parameters: Iterable[str]) -> tuple[str, ...]:
    """The parameter of that name, whose dots may be underscores, or where there is none all that have it as last part.

    So `lr` is every learning rate, but `batch_size` that of the run where a group has one as well.
    """
    known = tuple(parameters)
    exact = tuple(each for each in known if name in (each, each.replace(".", "_")))
    return exact or tuple(each for each in known if name == each.rpartition(".")[2])


def name_rates(name: str, parameters: Iterable[str]) -> str:
    """` Its learning rates are generator_lr, ...` where `name` is `lr` and those of the recipe have longer names."""
    rates = [parameter for parameter in parameters if parameter.endswith("_lr")] if name == "lr" else []
    return f" Its learning rate{'s are' if len(rates) > 1 else ' is'} {', '.join(rates)}." if rates else ""


@functools.cache
def _fields(params: Any) -> dict[str, FieldInfo]:
    """Pydantic's fields of a Params class; those of a plain dataclass take milliseconds to make."""
    if pydantic_dataclasses.is_pydantic_dataclass(params):
        return params.__pydantic_fields__
    return _fields(pydantic_dataclasses.dataclass(params, frozen=params.__dataclass_params__.frozen))


def _check_names(known: list[str], values: Mapping[str, Any]) -> None:
    for name, value in flatten(values).items():
        inside = [other for other in known if other.startswith(name + ".")]
        if inside and value != {}:
            raise InputError(f"{name} = {value!r} is not allowed: {name} is a group; it has {', '.join(inside)}.")
        if name not in known and not inside:
            same = [repr(other) for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
            near = did_you_mean(name, known) or (f" Did you mean {' or '.join(same)}?" if same else "")
            near = name_rates(name, known) or near
            raise InputError(f"There is no parameter {name!r}; the recipe has {', '.join(known)}.{near}")


def _check_values(given: Mapping[str, Any], built: Mapping[str, Any]) -> None:
    """Refuse what pydantic accepts: NaN, infinity, and a boolean for a number."""
    accepted = flatten(built)
    for name, value in flatten(given).items():
        if isinstance(value, bool) and name in accepted and not isinstance(accepted[name], bool | str):
            raise InputError(f"{name} = {str(value).lower()} is not allowed: it takes a number.")
    for name, value in accepted.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} = {value} is not allowed: it must be a finite number.")
