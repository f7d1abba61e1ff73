"""Config files and the command line over them: their values, and the error where one is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec, read_config
from modtrain.scheduling.run_changes import differences
from modtrain.storage.run import RunSpec
from modtrain.sweeps.sweep import new_sweep, trial_config


def config_file(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read_config(config_file(folder, text), {}, [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_command_line_wins_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    path = config_file(tmp_path, "epochs: 3\nexchange-every: 5\nparams: {lr: 1, opponents: 2}\n")
    config = read_config(path, {"epochs": 7, "seed": None}, ["lr=2e-3"])
    assert (config.epochs, config.exchange_every, config.seed) == (7, 5, 0)
    assert config.params == {"lr": 2e-3, "opponents": 2}


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert read_config(config_file(tmp_path, "# nothing yet\n"), {}, []) == Config()


def test_files_that_a_config_names_are_meant_beside_it(tmp_path: Path) -> None:
    config = read_config(config_file(tmp_path, "recipe: ./mine.py\ndataroot: images\n"), {}, [])
    assert config.recipe == str(tmp_path / "mine.py")
    assert config.dataroot == str(tmp_path / "images")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch: 3", "Did you mean 'epochs'?"),
        ("epochs: 0", "epochs = 0 is not allowed: give a number greater than or equal to 1."),
        ("epochs: true", "epochs = True is not allowed"),
        ("epochs: 1.5", "epochs = 1.5 is not allowed"),
        ("epochs: '3'", "epochs = '3' is not allowed"),
        ("peer_timeout_s: .inf", "peer_timeout_s = inf is not allowed"),
        ("peer_timeout_s: .nan", "peer_timeout_s = nan is not allowed"),
        ("max_staleness: -1", "max_staleness = -1 is not allowed; give a number of epochs, at least 0, exchange for"),
        ("max_staleness: never", "max_staleness = 'never' is not allowed; give a number of epochs"),
        ("max_staleness: true", "max_staleness = True is not allowed; give a number of epochs"),
        ("name: [a]", "name = ['a'] is not allowed"),
        ("device: gpu", "use auto, cpu, cuda, cuda:1 or mps"),
        ("params: [1, 2]", "it holds names and values."),
        ("params: 3", "it holds names and values."),
        ("epochs: 1\nepochs: 2", "'epochs' is given twice"),
        ("- 1\n- 2", "must hold names and values"),
        ("1: 2", "must hold names and values"),
        ("just text", "must hold names and values"),
        (
            "a: [1",
            "config.yaml is not YAML: line 1, column 6: while parsing a flow sequence, expected ',' or ']', but got",
        ),
        (
            "a: 1\nbroken\nb: 2",
            "is not YAML: line 3, column 1: while scanning a simple key, could not find expected ':'.",
        ),
        ("a: \0", "is not YAML: character 4: special characters are not allowed."),
        ("[" * 2000, "is not YAML: it is nested too deep."),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("nodes: 3\nplace: a | b", "--nodes 3 contradicts --place 'a | b'"),
    ],
)
def test_a_wrong_file_is_explained_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in error_of(tmp_path, text)


def test_a_wrong_value_in_python_is_the_same_sentence() -> None:
    with pytest.raises(InputError, match="nodes = 0 is not allowed: give a number greater than or equal to 1"):
        Config(nodes=0)
    with pytest.raises(InputError, match="Did you mean 'local'"):
        Config(backend="lokal")


def test_a_file_that_is_not_there_or_no_text_is_explained(tmp_path: Path) -> None:
    config_file(tmp_path, "epochs: 1")
    with pytest.raises(InputError, match=r"No such file or directory. Did you mean 'config.yaml'?"):
        read_config(tmp_path / "confg.yaml", {}, [])
    with pytest.raises(InputError, match=r"No such file or directory. Beside it: config.yaml."):
        read_config(tmp_path / "pix2pix.yaml", {}, [])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not YAML: byte 1 is not UTF-8"):
        read_config(tmp_path / "binary.yaml", {}, [])


def test_the_bound_of_staleness_is_the_recipe_s_or_lockstep_unless_there_is_to_be_none(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    (tmp_path / "silent.py").write_text(tiny_recipe.read_text().replace("max_staleness=None,", ""))
    silent = load_recipe(str(tmp_path / "silent.py"))
    apart = [[name] for name in recipe.modules]

    def bound(recipe: Recipe, text: str) -> int | str | None:
        return new_spec(read_config(None, {"max_staleness": text or None}), recipe, apart).max_staleness

    assert (bound(recipe, ""), bound(silent, "")) == (None, 0)
    assert (bound(silent, "none"), bound(silent, "3"), bound(silent, "exchange")) == (None, 3, "exchange")
    spec = new_spec(Config(max_staleness="none"), silent, apart)
    assert differences(Config(max_staleness="none"), silent, spec) == []
    assert differences(Config(max_staleness=2), silent, spec) == ["max_staleness is 'none', not 2"]
    config = Config(recipe=str(tmp_path / "silent.py"), max_staleness="none")
    trial = trial_config(new_sweep(config, {"lr": [1, 2]}).config, {}, silent.params)
    assert new_spec(trial, silent, apart).max_staleness is None


def test_a_new_run_remembers_of_which_metrics_less_is_better(tiny_recipe: Path) -> None:
    recipe = dataclasses.replace(load_recipe(str(tiny_recipe)), lower_is_better=("mean",))
    spec = new_spec(Config(recipe=str(tiny_recipe)), recipe, [["generator", "discriminator"]])
    assert spec.lower_is_better == ["mean"]
    old = json.loads(spec.model_dump_json())
    del old["lower_is_better"]
    assert RunSpec.model_validate(old).lower_is_better == []


def test_only_what_is_asked_for_can_differ_from_a_run(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    begun: dict[str, Any] = {"recipe": str(tiny_recipe), "epochs": 4, "params": {"lr": 0.5}}
    spec = new_spec(Config(**begun), recipe, [["generator"], ["discriminator"]])
    for same in ({}, begun, {"nodes": 2}, {"place": "generator|discriminator"}, {"backend": "local", "name": "x"}):
        assert differences(Config(**same), recipe, spec) == []
    assert differences(Config(epochs=5, nodes=1, params={"lr": 1, "opponents": 1}), recipe, spec) == [
        "epochs is 4, not 5",
        "lr is 0.5, not 1.0",
        "nodes is 2, not 1",
    ]
    assert differences(Config(place="generator,discriminator"), recipe, spec) == [
        "place is 'generator | discriminator', not 'generator,discriminator'"
    ]
