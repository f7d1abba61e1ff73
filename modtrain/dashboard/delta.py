"""Delta: what changed between two versions of a page's data, so that an update sends only that.

A delta is one of

    {"set": value}                              the value is new
    {"keys": {key: delta}, "drop": [key]}       of an object: changed and new keys, removed keys
    {"skip": m, "keep": n, "add": [value]}      of a list: without its first m items the next n stay, others follow
    {"items": {index: delta}}                   of a list of the same length: changed items

`static/delta.js` applies it in the browser.
"""

from __future__ import annotations

from typing import Any

Delta = dict[str, Any]


def delta(old: Any, new: Any) -> Delta | None:
    """The delta from one JSON value to another; None where they are equal."""
    if type(old) is type(new):
        if old is new or old == new:
            return None
        if isinstance(new, dict):
            changes = {key: delta(old[key], value) if key in old else {"set": value} for key, value in new.items()}
            drop = [key for key in old if key not in new]
            return {"keys": {key: each for key, each in changes.items() if each}, "drop": drop}
        if isinstance(new, list):
            return _of_lists(old, new)
    return {"set": new}


def _of_lists(old: list[Any], new: list[Any]) -> Delta:
    """Lists grow at their end and may lose their beginning; of a list of objects some may have changed."""
    skip = next((index for index, value in enumerate(old) if new and value == new[0]), 0)
    if skip == 0 and len(old) == len(new) and all(isinstance(each, dict) for each in new):
        changes = {str(index): delta(*pair) for index, pair in enumerate(zip(old, new, strict=True))}
        return {"items": {index: each for index, each in changes.items() if each}}
    pairs = list(zip(old[skip:], new, strict=False))
    keep = next((index for index, (before, after) in enumerate(pairs) if before != after), len(pairs))
    return {"skip": skip, "keep": keep, "add": new[keep:]}
