"""Deltas as a browser applies them."""

from __future__ import annotations

from typing import Any

from modtrain.dashboard.delta import Delta


def apply_delta(old: Any, change: Delta | None) -> Any:
    """The new value, as the browser builds it; `old` is not changed."""
    if change is None:
        return old
    if "set" in change:
        return change["set"]
    if "keys" in change:
        kept = {key: value for key, value in old.items() if key not in change["drop"]}
        return kept | {key: apply_delta(old.get(key), each) for key, each in change["keys"].items()}
    if "add" in change:
        return [*old[change["skip"] : change["skip"] + change["keep"]], *change["add"]]
    changed = {int(index): each for index, each in change["items"].items()}
    return [apply_delta(value, changed.get(index)) for index, value in enumerate(old)]
