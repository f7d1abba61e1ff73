"""The front page is short and links to every page, and each page names everything that it describes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import modtrain
from modtrain import errors, plugins
from modtrain.cli import app
from modtrain.cli.terminal import exchange_facts
from modtrain.data.base import Data
from modtrain.recipes.base import Evaluation, Module, Recipe, resolve
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.params import build_params
from modtrain.recipes.stages import Stage
from modtrain.scheduling.config import Config
from modtrain.scheduling.placement import format_placement
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


def recipe_rows() -> dict[str, dict[str, str]]:
    """By recipe the cells of the table of all recipes, by column."""
    _, _, section = RECIPES.read_text().partition("\n## All recipes\n")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:1] == "|"]
    columns = rows[0]
    return {row[0].partition("](")[0].strip("[`"): dict(zip(columns, row, strict=True)) for row in rows[2:]}


def test_the_table_of_all_recipes_has_a_row_for_each() -> None:
    assert list(recipe_rows()) == sorted(plugins.built_in("recipe"))


@pytest.mark.parametrize("name", plugins.built_in("recipe"))
def test_the_table_of_all_recipes_is_true(name: str) -> None:
    recipe, row = load_recipe(name), recipe_rows()[name]
    params = build_params(recipe.params, {})
    modules = []
    for module, options in recipe.modules.items():
        edges = [(edge.peer, resolve(edge.last, params, "last", module)) for edge in options.edges()]
        read = ", ".join(f"`{peer}`" + (f" x{last}" if last > 1 else "") for peer, last in edges)
        modules.append(f"`{module}`" + (" never trained" if options.is_fixed else f" < {read}" if read else ""))
    assert row["modules < what they read"] == "; ".join(modules)
    placed = recipe.placement or [(module,) for module in recipe.trained]
    assert row["workers"] == f"`{format_placement(placed)}`".replace("|", "\\|")
    facts = exchange_facts(recipe.exchange_every, recipe.max_staleness)
    assert row["age of peers"].startswith(f"{facts['exchange']}, {facts['staleness']}: ")
    shares = [int(share) for share in re.findall(r"(\d+) %", row["share of each worker"])]
    assert (len(shares), sum(shares)) == (len(placed), 100)


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
