"""What the Params of several recipes share: types of fields with their bounds, and the usual decay of a rate."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

OPTIONS = ConfigDict(extra="forbid")
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _parted(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value


def _above_zero(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(value <= 0 for value in values):
        raise ValueError("give numbers above 0, such as 32,32,16")
    return values


Counts = Annotated[tuple[int, ...], BeforeValidator(_parted), AfterValidator(_above_zero)]
"""Numbers of things; in text `32,32,16`."""
Positives = Annotated[tuple[float, ...], BeforeValidator(_parted), AfterValidator(_above_zero)]
"""Numbers above 0; in text `1,1.5,2`."""


def linear_decay(progress: float, *, decay_from: float, finished_at: float = 1.0) -> float:
    """Factor on a learning rate: 1, from `decay_from` on linearly to 0 at `finished_at`, all shares of the run."""
    return max(0.0, min(1.0, (finished_at - progress) / max(finished_at - decay_from, 1e-9)))
