"""What the Params of several recipes share: types of fields with their bounds, and the usual decay of a rate."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

OPTIONS = ConfigDict(extra="forbid")
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def linear_decay(progress: float, *, decay_from: float, finished_at: float = 1.0) -> float:
    """Factor on a learning rate: 1, from `decay_from` on linearly to 0 at `finished_at`, all shares of the run."""
    return max(0.0, min(1.0, (finished_at - progress) / max(finished_at - decay_from, 1e-9)))
