"""YAML 1.2 scalars, and no name twice in one mapping."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from modtrain.errors import InputError, did_you_mean_file


def read_yaml(text: str) -> Any:
    """The plain values in a YAML text; yaml.YAMLError where it is none, or where a name stands twice in one mapping."""
    return yaml.load(text, _Yaml)


def read_value(text: str) -> Any:
    """The plain value of a YAML text; the text itself where it is no YAML."""
    try:
        return read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def read_mapping(path: Path, kind: str, example: str) -> dict[str, Any]:
    """Names and values of a YAML file; InputError names the file, and what `kind` of file it should be."""
    try:
        values = read_yaml(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        beside = sorted(other.name for other in path.parent.glob("*.y*ml"))
        near = did_you_mean_file(path, beside) or (f" Beside it: {', '.join(beside)}." if beside else "")
        raise InputError(f"The {kind} {path} cannot be read: {error.strerror}.{near}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"The {kind} {path} is not YAML: {_problem(error)}.") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(f"The {kind} {path} must hold names and values, such as `{example}`.")
    return values


def _problem(error: Exception) -> str:
    """What is wrong, and in which line and column, where that is known."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1}: {error.reason}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    if not isinstance(error, yaml.MarkedYAMLError):
        return "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    words = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}" if mark else words


class _Yaml(yaml.SafeLoader):
    """YAML as version 1.2 reads scalars, and no name twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - pyyaml's own way

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader does, but a second `epochs:` is an error instead of winning silently."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": "<<",
}.items():
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)
