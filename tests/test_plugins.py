"""Finding recipes and backends, and what is said where a user's file cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from modtrain import plugins
from modtrain.errors import InputError


def said(name: str, kind: str = "recipe") -> str:
    with pytest.raises(InputError) as caught:
        plugins.load(kind, name)
    return str(caught.value)


def file(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_name_is_found_in_the_package_also_with_underscores() -> None:
    assert "latent-translation" in plugins.built_in("recipe")
    assert plugins.load("recipe", "latent_translation") is plugins.load("recipe", "latent-translation")


def test_a_typing_mistake_gets_a_suggestion(tmp_path: Path) -> None:
    assert "Did you mean 'latent-translation'?" in said("latent-translaton")
    assert "Did you mean 'local'?" in said("locl", "backend")
    file(tmp_path, "recipe = 1")
    assert "Did you mean 'mine.py'?" in said(str(tmp_path / "mime.py"))
    assert "There is no recipe 'no.such.module'" in said("no.such.module")


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / f"beside_{folder.name}.py").write_text(f"value = {folder.name!r}")
        found.append(file(folder, f"from beside_{folder.name} import value as recipe"))
    assert [plugins.load("recipe", name) for name in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\ndef broken(:\n", "mine.py, line 2: syntax error"),
        (
            "import os\n\ndef f():\n    return 1 / 0\n\nf()\n",
            "mine.py, line 4, in f: ZeroDivisionError: division by zero",
        ),
        ("import no_such_package_here", "line 1, in <module>: ModuleNotFoundError"),
        ("import sys\nsys.exit('bye')", "line 2, in <module>: SystemExit: bye"),
        ("open('/no/such/file')", "line 1, in <module>: FileNotFoundError"),
        ("x = 1", "defines no `recipe`; end it with `recipe = Recipe(...)`"),
        ("from modtrain.recipe import Recipe\nrecipe = Recipe(params=int, data=int, modules={})", "has no modules"),
    ],
)
def test_what_is_wrong_in_a_users_file_is_said_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in said(file(tmp_path, text))


def test_an_error_in_an_importable_module_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pkg_of_mine").mkdir()
    file(tmp_path, "", "pkg_of_mine/__init__.py")
    file(tmp_path, "raise ValueError('bad')", "pkg_of_mine/gan.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "pkg_of_mine/gan.py, line 1, in <module>: ValueError: bad" in said("pkg_of_mine.gan")
