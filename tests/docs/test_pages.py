"""The front page is short and links to every page, and each page names everything that it describes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import modtrain
from modtrain import errors, plugins
from modtrain.cli import app
from modtrain.data.base import Data
from modtrain.recipes.base import Evaluation, Module, Recipe
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.stages import Stage
from modtrain.scheduling.config import Config
from modtrain.storage import layout
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.run_state import DESCRIPTIONS
from tests.support.markdown import ROOT, all_blocks, blocks, documents, links, name_of

README, PACKAGE = ROOT / "README.md", ROOT / "modtrain"
COMMANDS, RECIPES, API = PACKAGE / "cli" / "README.md", PACKAGE / "recipes" / "README.md", PACKAGE / "README.md"
MOST_LINES = 250
LANGUAGES = {"", "sh", "python", "py", "yaml", "jinja"}
"""`python` is run by a test, `py` is a fragment that is not."""


def test_the_front_page_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MOST_LINES


def test_the_front_page_links_to_every_page() -> None:
    linked = {(README.parent / target.partition("#")[0]).resolve() for target in links(README)}
    nested = {ROOT / "cluster" / "ray" / "README.md", ROOT / "cluster" / "local-slurm" / "README.md"}
    assert set(documents()) - linked - nested == {README}


@pytest.mark.parametrize("page", [README, COMMANDS], ids=name_of)
def test_a_table_names_every_command(page: Path) -> None:
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        assert f"| `modtrain {name} " in page.read_text()


def test_every_exit_code_is_explained() -> None:
    for error in (errors.ModtrainError, *errors.ModtrainError.__subclasses__()):
        assert f"| {error.exit_code} |" in COMMANDS.read_text()
    assert "modtrain/cli/README.md#exit-codes" in links(README)


def test_every_recipe_is_named() -> None:
    for recipe in plugins.built_in("recipe"):
        assert f"`{recipe}`" in README.read_text()
        assert f"`{recipe}`" in RECIPES.read_text()


@pytest.mark.parametrize("described", [Recipe, Stage, Module, Data, Evaluation], ids=lambda kind: kind.__name__)
def test_the_reference_describes_every_field_of_a_recipe(described: type) -> None:
    text = RECIPES.read_text()
    assert [field.name for field in dataclasses.fields(described) if f"| `{field.name}` |" not in text] == []


def test_the_reference_describes_what_a_loss_can_call() -> None:
    public = {name for name in vars(Nets) if not name.startswith("_")} - {
        "enter",
        "forget",
        "start_step",
    }  # of the worker
    text = RECIPES.read_text()
    assert [name for name in public if f"`nets.{name}(" not in text and f"`nets.{name}`" not in text] == []


def test_the_command_line_page_describes_every_field_of_a_config() -> None:
    table = [line for line in COMMANDS.read_text().splitlines() if line.startswith("| `")]
    named = {word.strip("`,") for line in table for word in line.split("|")[1].split()}
    assert set(Config.model_fields) <= named


def test_the_command_line_page_explains_every_state() -> None:
    assert [state for state in DESCRIPTIONS if f"| {state} | " not in COMMANDS.read_text()] == []


def test_the_storage_page_names_every_file_and_folder() -> None:
    names = [value for name, value in vars(layout).items() if name.isupper()]
    assert len(names) > 10
    assert [name for name in names if name not in (PACKAGE / "storage" / "README.md").read_text()] == []


def test_the_api_page_names_every_public_name_and_field_of_a_checkpoint() -> None:
    text = API.read_text()
    imported = {word for line in blocks(API, "python")[0].splitlines() for word in line.split("#")[0].split()[3:]}
    assert {name.strip(",") for name in imported} == set(modtrain.__all__)
    fields = {field.name for field in dataclasses.fields(Checkpoint)} - {"format"}
    assert [name for name in fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", documents(), ids=name_of)
def test_a_block_has_a_known_language(page: Path) -> None:
    assert {block.language for block in all_blocks(page)} <= LANGUAGES
