"""Recipes, backends and trackers by name, and the messages where a user's file cannot be loaded."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from modtrain import plugins
from modtrain.errors import InputError
from modtrain.recipes.base import Recipe


def error_of(name: str, kind: str = "recipe") -> str:
    with pytest.raises(InputError) as caught:
        plugins.load(kind, name)
    return str(caught.value)


def file(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_built_in_name_may_be_written_with_underscores() -> None:
    assert "latent-translation" in plugins.built_in("recipe")
    assert plugins.load("recipe", "latent_translation") is plugins.load("recipe", "latent-translation")


@pytest.mark.parametrize("kind", plugins.PACKAGES)
def test_the_built_in_names_are_the_modules_that_define_one(kind: str) -> None:
    package = importlib.import_module(plugins.PACKAGES[kind])
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    defining = [module.__name__.rpartition(".")[2] for module in modules if hasattr(module, kind)]
    assert plugins.built_in(kind) == sorted(name.replace("_", "-") for name in defining)
    assert len(defining) < len(modules)


def test_the_built_in_names_are_found_without_importing_the_modules() -> None:
    program = (
        "import sys; from modtrain import plugins\n"
        "names = [name for kind in plugins.PACKAGES for name in plugins.known(kind)]\n"
        "assert len(names) >= 8\n"
        "assert not {'torch', 'ray', 'tensorboard', 'wandb', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_mistyped_name_gets_a_suggestion(tmp_path: Path) -> None:
    assert "Did you mean 'latent-translation'?" in error_of("latent-translaton")
    assert "Did you mean 'local'?" in error_of("locl", "backend")
    file(tmp_path, "recipe = 1")
    assert "Did you mean 'mine.py'?" in error_of(str(tmp_path / "mime.py"))
    (tmp_path / "mixed.py").touch()
    assert error_of(str(tmp_path / "nix.py")) == (
        f"There is no file {tmp_path}/nix.py; as a recipe give a Python file, or one of biggan, "
        "cyclegan, dcgan, latent-translation, pix2pix, progressive-gan, "
        "progressive-srgan, srgan."
    )
    assert "Did you mean 'latent-translation'?" in error_of(str(tmp_path / "latent_translation.py"))
    assert "Did you mean" not in error_of(str(tmp_path / "translation.py"))
    assert error_of(f"{tmp_path}/").startswith(f"{tmp_path} is a folder; as a recipe give a Python file")
    for name in ("no.such.module", ".", "..mine", "mine.t-t"):
        assert error_of(name) == (
            f"There is no recipe {name!r}; give one of biggan, cyclegan, dcgan, latent-translation, pix2pix, "
            "progressive-gan, progressive-srgan, srgan, or a file (./my_recipe.py), or a module (package.module)."
        )


def test_two_files_with_the_same_name_are_two_recipes(tmp_path: Path) -> None:
    names = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / f"beside_{folder.name}.py").write_text(f"value = {folder.name!r}")
        names.append(file(folder, f"from beside_{folder.name} import value as recipe"))
    assert [plugins.load("recipe", name) for name in names] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
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
        ("from modtrain import Recipe\nrecipe = Recipe(params=int, data=int, modules={})", "has no modules"),
    ],
)
def test_an_error_in_a_users_file_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in error_of(file(tmp_path, text))


def test_an_error_in_an_importable_module_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pkg_of_mine").mkdir()
    file(tmp_path, "", "pkg_of_mine/__init__.py")
    file(tmp_path, "raise ValueError('bad')", "pkg_of_mine/gan.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "pkg_of_mine/gan.py, line 1, in <module>: ValueError: bad" in error_of("pkg_of_mine.gan")


def test_libraries_in_a_folder_below_a_users_file_are_not_the_users_code() -> None:
    """A home directory holds recipes, and a clone and an environment as well."""
    home = Path(plugins.__file__).parents[1]
    with pytest.raises(InputError) as error:
        Recipe(params=int, data=int, modules={})
    line = plugins.line_of(error.value, str(home / "ring.py"))
    assert str(line).startswith(f"{__file__}, line ")


def test_a_file_that_was_broken_since_it_was_imported_does_not_break_what_names_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "edited_since.py"
    source.write_text("class Rings:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    rings = importlib.import_module("edited_since").Rings
    source.write_text("class Rings:\n    pass\n)\n")
    assert plugins.place_of(rings) == "Rings"
