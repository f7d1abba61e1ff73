"""SweepSection: the section `sweep:` of a config file, which the options of `modtrain sweep` override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.params import sentence


class SweepSection(BaseModel):
    """What varies, which trials are run, and how many at a time; the options of the command have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    space: dict[str, Any] = Field(default_factory=dict)
    sampler: str = "grid"
    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    metric: str | None = None
    maximize: bool | None = None
    """None takes the direction of the metric from the recipe."""
    prune: str | None = None
    evaluate_every: int | None = Field(default=None, ge=1)
    max_running: int | None = Field(default=None, ge=1)
    nodes: int | None = Field(default=None, ge=1)

    def settings(self) -> dict[str, Any]:
        """The arguments of `new_sweep`."""
        return self.model_dump(exclude={"space", "max_running", "nodes"})


def read_section(values: Mapping[str, Any], options: Mapping[str, Any]) -> SweepSection:
    """The section of a config with the options that are not None; InputError names what is not allowed."""
    try:
        return SweepSection(**{**values, **{name: value for name, value in options.items() if value is not None}})
    except ValidationError as error:
        unknown = [str(item["loc"][0]) for item in error.errors() if item["type"] == "extra_forbidden"]
        if unknown:
            known = list(SweepSection.model_fields)
            near = did_you_mean(unknown[0], known)
            raise InputError(f"`sweep:` has no {unknown[0]!r}; it takes {', '.join(known)}.{near}") from None
        raise InputError(" ".join(sentence(item) for item in error.errors())) from None
