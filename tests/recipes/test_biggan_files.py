"""BigGAN begins with the files of other projects, and is exported to them, with equal outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modtrain
from modtrain.recipes.loading import params_of, recipe_of
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.run import Run
from modtrain.training import serialization
from tests.support.command import typed
from tests.support.published_biggan import AUTHORS, STUDIO, PublishedDiscriminator, PublishedGenerator

G, D = "generator", "discriminator"
AUTHORS_FILES = {G: "G_ema.pth", D: "D.pth"}
STUDIO_FILES = {G: "model=G_ema-best-weights-step=90000.pth", D: "model=D-best-weights-step=90000.pth"}
Nets = dict[str, nn.Module]


def published(project: str) -> Nets:
    """The authors' networks of 64 pixels, StudioGAN's of 32."""
    torch.manual_seed(0)
    if project == "authors":
        generator = PublishedGenerator(AUTHORS, [32, 32, 16, 8, 4], 3, classes=8, shared=4, attention=2)
        return {G: generator, D: PublishedDiscriminator(AUTHORS, [3, 8, 16, 32, 64, 128], 4, classes=8, attention=0)}
    generator = PublishedGenerator(STUDIO, [8, 8, 8, 8], 3, classes=8, shared=4, attention=1)
    return {G: generator, D: PublishedDiscriminator(STUDIO, [3, 8, 8, 8, 8], 2, classes=8, attention=0)}


def as_saved(net: nn.Module) -> Any:
    return (
        {"state_dict": net.state_dict(), "step": 90000, "run_name": "x"} if net.layout is STUDIO else net.state_dict()
    )


def at_version_0(run: Run) -> Nets:
    """The networks with the weights that the run began with, which nothing has settled."""
    recipe, nets = recipe_of(run), Nets()
    for name, module in recipe.modules.items():
        store, nets[name] = run.store(name), module.build(params_of(run.spec, recipe)).eval()
        newest = store.latest()
        assert newest is not None
        serialization.load_weights(nets[name], store.read(newest, WEIGHTS))
    return nets


def outputs(nets: Nets, noise: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        images = nets[G].eval()(noise, labels)
        return images, nets[D].eval()(images, labels)


@pytest.mark.parametrize(
    ("project", "files", "epoch", "sizes"),
    [
        ("authors", AUTHORS_FILES, "latest", "crop_size 64 attention 32 noise_size 15 generator.width 2"),
        ("studiogan", STUDIO_FILES, "90000", "crop_size 32 attention 16 noise_size 12 generator.norm_eps 0.0001"),
    ],
)
def test_the_networks_of_a_project_begin_a_run_and_are_exported_with_equal_outputs(
    tmp_path: Path, project: str, files: dict[str, str], epoch: str, sizes: str
) -> None:
    theirs = published(project)
    (tmp_path / "files").mkdir()
    for module, name in files.items():
        torch.save(as_saved(theirs[module]), tmp_path / "files" / name)
    where = ("--recipe", "biggan", "--root", tmp_path, "--name", "begun", "--no-check", "--batch-size", 2)
    shown = typed("import", tmp_path / "files", *where, "--format", project, "--epoch", epoch)
    assert shown.code == 0, shown.err
    words = sizes.split()
    for name, value in zip(words[::2], words[1::2], strict=True):
        assert f"{name} {value}" in " ".join(shown.out.split())
    run = Run.open(tmp_path / "begun")
    noise, labels = torch.randn(4, run.spec.params["noise_size"]), torch.tensor([0, 1, 2, 7])
    for ours, wanted in zip(outputs(at_version_0(run), noise, labels), outputs(theirs, noise, labels), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)

    assert typed("export", run.path, "--format", project, "--out", tmp_path / "out").code == 0
    for module, name in files.items():
        tensors = torch.load(tmp_path / "out" / name.replace("90000", "latest"), weights_only=True)
        theirs[module].load_state_dict(tensors.get("state_dict", tensors), strict=True)
    settled = dict(modtrain.load(run.path, device="cpu").networks)
    for ours, wanted in zip(outputs(settled, noise, labels), outputs(theirs, noise, labels), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-2, atol=5e-3)  # after one more power iteration of theirs


def test_a_file_begins_a_module_by_the_names_of_the_project_that_most_of_its_tensors_have(tmp_path: Path) -> None:
    torch.save(published("studiogan")[G].state_dict(), tmp_path / "G.pth")
    small = ("--classes", 8, "--noise-size", 12, "--generator-shared-size", 4, "--generator-width", 2, "--no-check")
    launch = ("launch", "--recipe", "biggan", *small, "--root", tmp_path, "--dry-run")
    taken = typed(*launch, "--init", f"generator={tmp_path / 'G.pth'}")
    assert taken.code == 0, taken.err
    other = typed(*launch, "--init", f"generator={tmp_path / 'G.pth'}", "--generator-width", 3)
    assert "G.pth does not fit generator: linear0.bias is (128,) instead of (192,)" in other.err
