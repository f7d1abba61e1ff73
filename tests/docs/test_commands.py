"""Command lines of the documentation are accepted by the command line as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from modtrain.cli import app
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import build_params
from modtrain.scheduling.config import read_config
from modtrain.scheduling.profile import options
from tests.support.command import typed
from tests.support.markdown import ROOT, blocks, commands, documents, inline_commands, name_of

PROGRAM: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = PROGRAM.commands
README, RECIPES = ROOT / "README.md", ROOT / "modtrain" / "recipes" / "README.md"
WITH_COMMANDS = [path for path in documents() if commands(path)]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_command_line_is_parsed(path: Path) -> None:
    for words in commands(path):
        parse(words)


def parse(words: list[str]) -> None:
    """Read a command line without running it; the files of the repository that it names must exist."""
    name, *rest = words
    with COMMANDS[name].make_context(name, list(rest)):
        assert [word for word in rest if word.startswith(("jobs/", "cluster/")) and not (ROOT / word).exists()] == []


@pytest.mark.parametrize("wrong", ["status", "lunch", "launch jobs/no.yaml", "stop RUN --json", "apply RUN"])
def test_a_wrong_command_line_is_found(wrong: str) -> None:
    with pytest.raises((typer.TyperException, KeyError, AssertionError)):
        parse(wrong.split())


@pytest.mark.parametrize("page", [README, RECIPES], ids=name_of)
def test_the_launches_of_a_page_would_start(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tests/scheduling/test_profiles.py` has those of the pages about clusters and sweeps."""
    monkeypatch.chdir(tmp_path)
    Path("my_gan.py").write_text(blocks(page, "python")[0])
    Path("jobs").symlink_to(ROOT / "jobs")
    for name in ("trainA", "trainB"):
        (folder := Path("DATAROOT", name)).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "one.png")
    launches = [words for words in commands(page) if words[0] == "launch"]
    assert len(launches) > 2
    for words in launches:
        result = typed(*words, "--dry-run")
        assert result.code == 0, f"{words}: {result.err}"


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_commands_in_the_text_have_the_options_that_it_names(path: Path) -> None:
    for name, *rest in inline_commands(path):
        if name in ("COMMAND", "--help"):
            continue
        command = COMMANDS[name]
        known = {"--help", *(option for param in command.params for option in [*param.opts, *param.secondary_opts])}
        named = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert named <= known, f"{name} {' '.join(rest)}"


def test_every_option_is_named_in_the_documentation() -> None:
    text = "\n".join(path.read_text() for path in documents() if path.name != "CHANGELOG.md")
    params = [param for command in COMMANDS.values() for param in command.params if not getattr(param, "hidden", False)]
    declared = {name for param in params for name in [*param.opts, *param.secondary_opts] if name.startswith("--")}
    named = {name for name, _ in options()} | declared
    assert sorted(name for name in named if not re.search(rf"{name}(?![\w-])", text)) == []


def test_the_config_file_of_the_command_line_page_is_read(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "modtrain" / "cli" / "README.md", "yaml")
    (tmp_path / "config.yaml").write_text(text)
    config = read_config(tmp_path / "config.yaml", {}, [])
    params = build_params(load_recipe(config.recipe).params, config.params)
    assert (config.nodes, params.batch_size, params.translator.lr) == (3, 4, 1e-4)
