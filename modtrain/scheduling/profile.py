"""Profile: what a cluster wants to be told about every job, from a YAML file, a config and the command line.

`cluster/` holds commented examples. Deliberately not here: how a scheduler spells any of it (`backends/slurm.py`,
`backends/pbs.py`), and the text of a job script (`jobscript.py`).
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
"""Other names that people type."""
_UNITS_S = (1, 60, 3600)


def walltime_s(text: str) -> int:
    """Seconds of `HH:MM:SS` or `D-HH:MM:SS`. Bare numbers are refused: Slurm means minutes by them, PBS seconds."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text)
    if not found or not any(map(int, found.groups("0"))):
        raise ValueError("write it as HH:MM:SS or D-HH:MM:SS, such as 02:30:00")
    days, hours, minutes, seconds = map(int, found.groups("0"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _walltime(text: str) -> str:
    walltime_s(text)
    return text


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("it must be one line of text that can be printed")
    return text


def _plain(text: str) -> str:
    if re.search(r"\s", text):
        raise ValueError("it must not hold blanks")
    return _one_line(text)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Word = Annotated[
    str, BeforeValidator(lambda value: str(value) if type(value) is int else value), AfterValidator(_plain)
]
Line = Annotated[str, AfterValidator(_one_line)]
Lines = Annotated[tuple[Line, ...], BeforeValidator(lambda value: tuple(_listed(value)))]


class Profile(BaseModel):
    """One cluster's job options. None leaves the choice to the cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    backend: Line | None = Field(None, description="the backend that this profile is for: slurm or pbs")
    dialect: Literal["pbspro", "torque"] | None = Field(None, description="of PBS: pbspro or torque [asked of qsub]")
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
    exclude: Word | None = Field(None, description="nodes to stay away from (Slurm)")
    mail: Word | None = Field(None, description="address to write to")
    mail_on: Word | None = Field(None, description="when: END,FAIL for Slurm, abe for PBS")
    dependency: Word | None = Field(None, description="what to wait for, such as afterok:8812")
    array_limit: int = Field(1000, ge=0, description="tasks in one array at most; 0: no arrays [1000]")
    chain: int = Field(
        1, ge=1, le=1000, description="jobs submitted one after the other; 1: a job continues itself [1]"
    )
    publish_before_s: float = Field(120.0, gt=0, description="seconds before the time limit to publish and leave [120]")
    poll_s: float = Field(10.0, gt=0, description="seconds between two questions to the scheduler [10]")
    directives: Lines = Field((), description="one more directive, such as --directive=--exclusive; repeatable")
    leave_out: Lines = Field((), description="a directive that this site does not take, such as --mem; repeatable")
    prologue: Lines = Field((), description="a line to run before the worker, such as 'module load cuda'; repeatable")
    epilogue: Lines = Field((), description="a line to run after it; repeatable")
    python: Line | None = Field(None, description="the Python of the nodes [this one]")
    template: Line | None = Field(None, description="a job script template of the site's own")

    @property
    def limit_s(self) -> int | None:
        """The walltime in seconds."""
        return None if self.walltime is None else walltime_s(self.walltime)

    def with_values(self, values: Mapping[str, Any], source: str) -> Profile:
        """This profile with other values over it; lists grow. InputError names `source` and what is wrong."""
        known = list(type(self).model_fields)
        named = {ALIASES.get(name.replace("-", "_"), name.replace("-", "_")): value for name, value in values.items()}
        for name in named:
            if name not in known:
                raise InputError(
                    f"{source} has {name!r}, which is no job option; there are {', '.join(known)}."
                    f"{did_you_mean(name, known)}"
                )
        mine = self.model_dump(exclude_unset=True)
        for name, value in named.items():
            if isinstance(mine.get(name), tuple):
                mine[name] = [*mine[name], *(line for line in _listed(value) if line not in mine[name])]
            elif value is not None:
                mine[name] = value
        try:
            return Profile(**mine)
        except ValidationError as error:
            raise InputError(f"{source}: {' '.join(sentence(item) for item in error.errors())}") from None


def read_profile(path: Path) -> Profile:
    """The profile in a YAML file; a template is meant relative to it."""
    values = read_mapping(path, "profile", "queue: long")
    if isinstance(values.get("template"), str):
        values["template"] = str((path.parent / Path(values["template"]).expanduser()).resolve())
    return Profile().with_values(values, f"The profile {path}")


def options() -> list[tuple[str, str]]:
    """Every job option as the command line spells it, with its meaning."""
    hidden = ("backend",)
    spelled = {"directives": "directive"}
    fields = Profile.model_fields.items()
    return [(f"--{spelled.get(n, n).replace('_', '-')}", f.description or "") for n, f in fields if n not in hidden]


def only(profile: Profile, understood: Sequence[str], backend: str) -> None:
    """InputError where a profile says something that a backend has no use for."""
    odd = [name for name in profile.model_fields_set if name not in understood and name != "backend"]
    if odd:
        raise InputError(
            f"{', '.join(sorted(odd))} cannot be asked of --backend {backend}; it takes {', '.join(understood)} alone, "
            "and slurm and pbs take every job option."
        )
