"""Links of the documentation lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.markdown import ROOT, anchors, documents, links, name_of, paths

by_name = pytest.mark.parametrize("path", documents(), ids=name_of)


@by_name
def test_every_relative_link_and_anchor_exists(path: Path) -> None:
    assert [target for target in links(path) if not resolves(path, target)] == []


@by_name
def test_every_path_that_is_named_exists(path: Path) -> None:
    assert [name for name in paths(path) if not any(ROOT.glob(name))] == []


def resolves(path: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    to = path.parent / name if name else path
    return to.exists() and (not anchor or anchor in anchors(to))


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two\n[a](page.md#one-two) [b](#one-two) [c](#three) ![d](no.png) [e](https://example.org)\n"
    )
    assert [target for target in links(page) if not resolves(page, target)] == ["#three", "no.png"]
