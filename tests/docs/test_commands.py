"""Command lines of the documentation are accepted by the command line as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from modtrain.cli import app
from modtrain.cli.arguments import LaunchCommand, job_options, names_of, settings_of
from modtrain.errors import ModtrainError
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import build_params, parameters
from modtrain.scheduling.config import read_config
from tests.support.markdown import ROOT, blocks, commands, documents, inline_commands, name_of

PROGRAM: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = PROGRAM.commands
WITH_COMMANDS = [path for path in documents() if commands(path)]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_command_line_is_parsed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in blocks(path, "python"):
        if "recipe = Recipe(" in text:
            (tmp_path / "my_gan.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for words in commands(path):
        parse(words)


def parse(words: list[str]) -> None:
    """Read a command line without running it, options of the recipe and of job scripts included."""
    name, *rest = words
    command = COMMANDS[name]
    with command.make_context(name, rest) as context:
        if isinstance(command, LaunchCommand):
            recipe = load_recipe(context.params["recipe"] or "latent-translation")
            job_options(context)
            settings_of(context, [parameter.name for parameter in parameters(recipe.params)])
    missing = [word for word in rest if word.startswith(("jobs/", "cluster/")) and not (ROOT / word).exists()]
    assert missing == [], words


@pytest.mark.parametrize("wrong", ["launch --nods 3", "status", "lunch", "launch jobs/no.yaml", "stop RUN --json"])
def test_a_wrong_command_line_is_found(wrong: str) -> None:
    with pytest.raises((ModtrainError, typer.TyperException, KeyError, AssertionError)):
        parse(wrong.split())


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_commands_in_the_text_have_the_options_that_it_names(path: Path) -> None:
    for name, *rest in inline_commands(path):
        if name in ("COMMAND", "--help"):
            continue
        command = COMMANDS[name]
        known = {"--help", *(option for param in command.params for option in names_of(param))}
        named = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert named <= known, f"{name} {' '.join(rest)}"


def test_the_config_file_of_the_command_line_page_is_read(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "modtrain" / "cli" / "README.md", "yaml")
    (tmp_path / "config.yaml").write_text(text)
    config = read_config(tmp_path / "config.yaml", {}, [])
    params = build_params(load_recipe(config.recipe).params, config.params)
    assert (config.nodes, params.batch_size, params.translator.lr) == (3, 4, 1e-4)
