"""Profile: a cluster's job options, from a YAML file, a config and the command line.

`cluster/` has commented examples; `backends/slurm.py` and `backends/pbs.py` turn the options into directives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.params import sentence
from modtrain.storage.strict_yaml import read_mapping

ALIASES = {"partition": "queue", "memory": "memory_gb", "directive": "directives"}
"""Accepted synonyms."""


def walltime_s(text: str) -> int:
    """Seconds of `HH:MM:SS` or `D-HH:MM:SS`; ValueError for a plain number: minutes to Slurm, seconds to PBS."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text)
    if not match or not any(map(int, match.groups("0"))):
        raise ValueError("write it as HH:MM:SS or D-HH:MM:SS, such as 02:30:00")
    days, hours, minutes, seconds = map(int, match.groups("0"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _walltime(text: str) -> str:
    walltime_s(text)
    return text


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("it must be one line of printable text")
    return text


def _plain(text: str) -> str:
    if re.search(r"\s", text):
        raise ValueError("it must not contain blanks")
    return _one_line(text)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Word = Annotated[
    str, BeforeValidator(lambda value: str(value) if type(value) is int else value), AfterValidator(_plain)
]
Line = Annotated[str, AfterValidator(_one_line)]
Lines = Annotated[tuple[Line, ...], BeforeValidator(lambda value: tuple(_as_list(value)))]


class Profile(BaseModel):
    """Job options of one cluster; None leaves the choice to the scheduler."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    backend: Line | None = Field(None, description="the backend that this profile is for: slurm or pbs")
    dialect: Literal["pbspro", "torque"] | None = Field(
        None, description="of PBS: pbspro or torque [from qsub --version]"
    )
    queue: Word | None = Field(None, description="queue, which Slurm calls partition")
    account: Word | None = Field(None, description="account or project to charge")
    qos: Word | None = Field(None, description="quality of service")
    reservation: Word | None = Field(None, description="reservation to run in")
    walltime: Annotated[str, AfterValidator(_walltime)] | None = Field(
        None, description="HH:MM:SS or D-HH:MM:SS of a job"
    )
    cpus: int | None = Field(None, ge=1, description="CPU cores of each worker")
    memory_gb: float | None = Field(None, gt=0, description="memory of each worker in GiB")
    gpus: int | None = Field(None, ge=0, description="GPUs of each worker")
    constraint: Word | None = Field(None, description="a feature that the node must have")
    exclude: Word | None = Field(None, description="nodes not to run on (Slurm)")
    mail: Word | None = Field(None, description="address for mail about jobs")
    mail_on: Word | None = Field(None, description="events to mail about: END,FAIL for Slurm, abe for PBS")
    dependency: Word | None = Field(None, description="jobs to wait for, such as afterok:8812")
    array_limit: int = Field(1000, ge=0, description="largest number of tasks in one array; 0: no arrays [1000]")
    chain: int = Field(
        1, ge=1, le=1000, description="jobs submitted in advance; 1: a job submits the next (PBS: flatuid) [1]"
    )
    publish_before_s: float = Field(120.0, gt=0, description="seconds before the time limit to publish and leave [120]")
    poll_s: float = Field(10.0, gt=0, description="seconds between two queries of the scheduler [10]")
    directives: Lines = Field((), description="an additional directive, such as --directive=--exclusive; repeatable")
    leave_out: Lines = Field((), description="a directive that this site refuses, such as --mem; repeatable")
    prologue: Lines = Field((), description="a line to run before the worker, such as 'module load cuda'; repeatable")
    epilogue: Lines = Field((), description="a line to run after the worker; repeatable")
    python: Line | None = Field(None, description="the Python of the nodes [this one]")
    template: Line | None = Field(None, description="a job script template of the site")

    @property
    def limit_s(self) -> int | None:
        return None if self.walltime is None else walltime_s(self.walltime)

    def with_values(self, values: Mapping[str, Any], source: str) -> Profile:
        """This profile with `values` set; lists are extended. InputError names `source` and the wrong value."""
        known = list(type(self).model_fields)
        named = {ALIASES.get(name.replace("-", "_"), name.replace("-", "_")): value for name, value in values.items()}
        for name in named:
            if name not in known:
                raise InputError(
                    f"{source} has {name!r}, which is not a job option; the options are {', '.join(known)}."
                    f"{did_you_mean(name, known)}"
                )
        merged = self.model_dump(exclude_unset=True)
        for name, value in named.items():
            if isinstance(merged.get(name), tuple):
                merged[name] = [*merged[name], *(line for line in _as_list(value) if line not in merged[name])]
            elif value is not None:
                merged[name] = value
        try:
            return Profile(**merged)
        except ValidationError as error:
            raise InputError(f"{source}: {' '.join(sentence(item) for item in error.errors())}") from None


def read_profile(path: Path) -> Profile:
    """The profile in a YAML file; the path of a template is relative to that file."""
    values = read_mapping(path, "profile", "queue: long")
    if isinstance(values.get("template"), str):
        values["template"] = str((path.parent / Path(values["template"]).expanduser()).resolve())
    return Profile().with_values(values, f"The profile {path}")


def options() -> list[tuple[str, str]]:
    """Every job option of the command line, such as `--memory-gb`, with its description."""
    fields = {"directive" if name == "directives" else name: field for name, field in Profile.model_fields.items()}
    return [
        (f"--{name.replace('_', '-')}", field.description or "") for name, field in fields.items() if name != "backend"
    ]


def check_supported(profile: Profile, supported: Sequence[str], backend: str) -> None:
    """InputError where a profile sets a job option that a backend does not support."""
    unsupported = [name for name in profile.model_fields_set if name not in supported and name != "backend"]
    if unsupported:
        raise InputError(
            f"--backend {backend} does not support {', '.join(sorted(unsupported))}; it takes {', '.join(supported)} "
            "only. The backends slurm and pbs take every job option."
        )
