"""`--init`: a module begins with the weights of a file or of another run's module instead of random ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from modtrain.errors import InputError
from modtrain.scheduling.config import Config, read_config
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.run import Run
from modtrain.training.evaluation import evaluate
from tests.support.runs import finish, make_run

Begin = Callable[..., Run]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    """A finished run with an evaluation."""
    path = tmp_path_factory.mktemp("trained") / "source"
    run = make_run(path, tiny_recipe, [["generator", "discriminator"]], epochs=1, params={"batches": 2})
    finish(run)
    evaluate(run)
    return run


@pytest.fixture
def begin(tmp_path: Path, tiny_recipe: Path) -> Begin:
    def begin(*init: str, **more: Any) -> Run:
        settings = {"epochs": 1, "nodes": 1, "params": {"batches": 1}, "name": "run"} | more
        settings |= {"init": init} if init else {}
        return plan_run(find_target(Config(recipe=str(tiny_recipe), root=str(tmp_path), **settings))).write()

    return begin


def weights(run: Run, module: str, version: int, file: str = "weights.safetensors") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run.store(module).folder(version) / file)


def same(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)


@pytest.mark.parametrize("reference", ["{run}", "{run}#generator", "{run}@best", "{run}#generator@{version}"])
def test_a_module_begins_with_the_average_of_another_run(begin: Begin, trained: Run, reference: str) -> None:
    newest = trained.store("generator").latest()
    assert newest
    run = begin("generator=" + reference.format(run=trained.path, version=newest.version))
    finish(run)
    average = weights(trained, "generator", newest.version, "ema.safetensors")
    assert same(weights(run, "generator", 0), average)
    assert same(weights(run, "generator", 0, "ema.safetensors"), average)
    assert run.spec.init["generator"].path.endswith(f"checkpoints/{newest.version:08d}/ema.safetensors")
    again = begin("generator=" + reference.format(run=trained.path, version=newest.version))
    assert again.spec == run.spec


def test_a_damaged_average_is_passed_over_and_a_damaged_version_that_is_named_is_refused(
    begin: Begin, trained: Run, tmp_path: Path
) -> None:
    source = Run.open(shutil.copytree(trained.path, tmp_path / "damaged"))
    newest = source.store("generator").latest()
    assert newest
    average = source.store("generator").folder(newest.version) / "ema.safetensors"
    average.write_bytes(average.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match="Version 1 of generator cannot be read"):
        begin(f"generator={source.path}@{newest.version}")
    assert begin(f"generator={source.path}").spec.init["generator"].path.endswith("/00000000/ema.safetensors")


@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"state_dict": tensors, "epoch": 3}])
def test_a_state_dict_that_torch_saved_is_read_without_executing_anything(
    begin: Begin, trained: Run, tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    tensors = weights(trained, "discriminator", 0)
    torch.save(wrap({f"module.{name}": value for name, value in tensors.items()}), tmp_path / "judge.pth")
    run = begin(f"discriminator={tmp_path / 'judge.pth'}")
    finish(run)
    assert same(weights(run, "discriminator", 0), tensors)
    (tmp_path / "judge.pth").unlink()
    assert begin(epochs=2).spec.epochs == 2
    finish(Run.open(run.path))  # only a module that begins needs the file


def test_what_does_not_fit_is_refused_before_anything_is_created(begin: Begin, trained: Run, tmp_path: Path) -> None:
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "pickled.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"{}")
    (tmp_path / "text.pth").write_text("hello")
    for reference, expected in {
        f"discriminator={trained.path}#generator": "does not fit discriminator: 2.weight is missing",
        f"generatr={trained.path}": "there is no such module; .* Did you mean 'generator'?",
        f"generator={trained.path}#painter": "source has no module 'painter'",
        f"generator={trained.path}@999": r"Version 999 of generator does not exist. Available: 0, 1\.",
        f"generator={trained.path}@newest": "--init generator: version 'newest' is not allowed; give a number or best",
        f"generator={trained.path / 'run.json'}": r"give a file \(.safetensors, .pth, .pt, .pth.tar\), or a module of",
        f"={trained.path}": "give MODULE=REF",
        f"generator={tmp_path / 'none.pth'}": "there is no file",
        f"generator={tmp_path / 'pickled.pt'}": "pickled.pt holds torch.nn.modules.linear.Linear, which is not loaded, "
        r"since that could run code; save only the tensors, as in torch.save\(net.state_dict\(\), path\)\.$",
        f"generator={tmp_path / 'text.pth'}": r"text.pth is not a file of torch.save, or a damaged one\.$",
        f"generator={tmp_path / 'torn.safetensors'}": "torn.safetensors is not a safetensors file, or a damaged one",
        "generator": "give MODULE=REF",
    }.items():
        with pytest.raises(InputError, match=expected):
            begin(reference)
    assert not (tmp_path / "run").exists()


def test_a_file_that_changed_before_training_began_is_refused(begin: Begin, trained: Run, tmp_path: Path) -> None:
    file = tmp_path / "generator.safetensors"
    file.write_bytes((trained.store("generator").folder(0) / "weights.safetensors").read_bytes())
    run = begin(f"generator={file}")
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"generator.safetensors has changed since the run was created"):
        finish(run)
    file.unlink()
    with pytest.raises(InputError, match=r"generator.safetensors are gone"):
        finish(run)


def test_references_of_a_config_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/fine.yaml").write_text("init: {generator: ../runs/apples#painter@12}\n")
    config = read_config(tmp_path / "jobs/fine.yaml", {})
    assert config.init == {"generator": f"{tmp_path}/runs/apples#painter@12"}
