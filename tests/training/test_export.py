"""`export` and `import`: files that the CycleGAN project loads, and runs that begin with its files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import modtrain
from modtrain.errors import InputError
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.loading import load_recipe
from modtrain.storage.run import Run
from modtrain.training.initial_versions import publish_initial_versions
from tests.support import SUPPORT
from tests.support.command import Result, typed
from tests.support.faults import Faults
from tests.support.published_nets import published_discriminator, published_generator, published_unet
from tests.support.runs import finish, make_run

SIZES = {"generator": {"width": 3, "blocks": 2}, "discriminator": {"width": 5}}
FILES = {
    "generator_ab": "latest_net_G_A.pth",
    "generator_ba": "latest_net_G_B.pth",
    "discriminator_b": "latest_net_D_A.pth",
    "discriminator_a": "latest_net_D_B.pth",
}


def published(module: str) -> torch.nn.Module:
    return published_generator(3, 2) if module.startswith("generator") else published_discriminator(5)


def tensors_of(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / name, weights_only=True))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the CycleGAN project saves after an epoch."""
    folder = tmp_path_factory.mktemp("checkpoints") / "horses"
    folder.mkdir()
    for module, name in FILES.items():
        torch.save(published(module).state_dict(), folder / name)
    return folder


@pytest.fixture
def importing(tmp_path: Path) -> Callable[..., Result]:
    def importing(folder: Path, *more: object) -> Result:
        common = ("--recipe", "cyclegan", "--root", tmp_path / "runs", "--name", "horses", "--no-check")
        return typed("import", folder, *common, *more)

    return importing


def test_the_projects_networks_load_what_is_exported_and_have_equal_outputs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "cyclegan", [list(FILES)], params=SIZES | {"batch_size": 2}, epochs=1)
    publish_initial_versions(run)
    shown = typed("export", run.path, "--format", "cyclegan", "--out", tmp_path / "files")
    assert shown.code == 0
    assert shown.out.splitlines()[0].endswith("files/latest_net_G_A.pth: generator_ab v0")
    model, images = modtrain.load(run), torch.rand(2, 3, 48, 48) * 2 - 1
    for module, name in FILES.items():
        theirs = published(module)
        theirs.load_state_dict(tensors_of(tmp_path / "files", name), strict=True)
        with torch.no_grad():
            torch.testing.assert_close(
                theirs["model"](images),
                model.networks[module](images),
                rtol=0,
                atol=1e-6,  # type: ignore[index]
            )
    again = typed("export", run.path, "--out", tmp_path / "files")
    assert (again.code, again.err.split("/")[-1]) == (
        2,
        "latest_net_G_A.pth exists already; give another --out folder, or replace it with --force.\n",
    )
    assert typed("export", run.path, "--out", tmp_path / "files", "--force").code == 0


def test_an_imported_run_is_applied_trained_and_exported_again(
    files: Path, importing: Callable[..., Result], tmp_path: Path
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for folder in ("trainA", "trainB"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        image.save(tmp_path / "data" / folder / "1.png")
    sizes = ("--load-size", 24, "--crop-size", 24, "--batch-size", 1)
    shown = importing(files, "--epochs", 1, "--nodes", 1, "--dataroot", tmp_path / "data", *sizes)
    assert shown.code == 0, shown.err
    assert "generator.width 3, generator.blocks 2, discriminator.width 5" in shown.out
    run = Run.open(tmp_path / "runs/horses")
    assert typed("export", run.path, "--out", tmp_path / "again").code == 0
    for name in FILES.values():
        before, after = tensors_of(files, name), tensors_of(tmp_path / "again", name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert typed("apply", run.path, tmp_path / "data/trainA/1.png", "--out", tmp_path / "zebras").code == 0
    assert (tmp_path / "zebras/1.png").exists()
    finish(run)
    newest = run.store("generator_ab").latest()
    assert newest
    assert (newest.step, newest.final) == (1, True)


@pytest.mark.parametrize(
    "breaks",
    [
        lambda call: call.startswith("rename") and "generator_ba/checkpoints" in call,
        lambda call: call.startswith("open") and "discriminator_b" in call and call.endswith("state.pt"),
        lambda call: call.startswith("rename") and call.endswith("/horses"),
    ],
    ids=["between two modules", "inside a version", "at the end"],
)
def test_an_import_that_storage_breaks_in_the_middle_leaves_nothing(
    breaks: Callable[[str], bool],
    files: Path,
    importing: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = Faults(tmp_path / "runs", lambda number, call: breaks(call))
    with monkeypatch.context() as patch:
        faults.install(patch)
        broken = importing(files)
    assert faults.hits
    assert (broken.code, broken.err.count("\n")) == (6, 1)
    assert broken.err.endswith("runs/horses cannot be created: Input/output error. Try again when storage answers.\n")
    assert list((tmp_path / "runs").iterdir()) == []
    assert importing(files).code == 0


def test_an_import_changes_no_folder_that_is_there(
    files: Path, importing: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "runs/horses").mkdir(parents=True)
    (tmp_path / "runs/horses/notes.txt").write_text("mine")
    assert "runs/horses exists already; choose another --name." in importing(files).err
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["horses", "notes.txt"]


def test_prefixes_and_running_statistics_of_old_files_are_left_out(
    files: Path, importing: Callable[..., Result], tmp_path: Path
) -> None:
    old = shutil.copytree(files, tmp_path / "old")
    for name in FILES.values():
        tensors = tensors_of(files, name) | {"model.2.running_mean": torch.zeros(3)}
        torch.save({f"module.{key}": value for key, value in tensors.items()}, old / name.replace("latest", "200"))
        (old / name).unlink()
    assert importing(old).err.endswith("it has 200_net_D_A.pth, 200_net_D_B.pth, 200_net_G_A.pth, 200_net_G_B.pth.\n")
    assert importing(old, "--epoch", 200).code == 0
    ours = modtrain.load(tmp_path / "runs/horses").networks["generator_ab"].state_dict().values()
    for own, theirs in zip(ours, tensors_of(files, FILES["generator_ab"]).values(), strict=True):
        assert torch.equal(own, theirs)


def test_modules_without_a_file_begin_with_random_weights_where_that_is_wanted(
    files: Path, importing: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(files / "latest_net_G_A.pth", tmp_path / "one")
    refused = importing(tmp_path / "one")
    assert "one has no latest_net_G_B.pth, latest_net_D_A.pth, latest_net_D_B.pth; with --partial" in refused.err
    shown = importing(tmp_path / "one", "--partial")
    assert shown.code == 0
    assert shown.out.count("random weights") == 3
    assert list(Run.open(tmp_path / "runs/horses").spec.init) == ["generator_ab"]


def with_code(folder: Path) -> None:
    torch.save({"net": torch.nn.Linear(2, 2)}, folder / "latest_net_G_A.pth")


def with_other_keys(folder: Path) -> None:
    torch.save({"model.model.0.weight": torch.zeros(4, 3, 4, 4)}, folder / "latest_net_G_A.pth")


def with_grey_images(folder: Path) -> None:
    tensors = tensors_of(folder, "latest_net_G_A.pth")
    torch.save(tensors | {"model.1.weight": torch.zeros(3, 1, 7, 7)}, folder / "latest_net_G_A.pth")


def with_another_depth(folder: Path) -> None:
    torch.save(published_generator(3, 6).state_dict(), folder / "latest_net_G_B.pth")


def in_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize(
    ("spoil", "options", "expected"),
    [
        (with_code, (), "G_A.pth holds torch.nn.modules.linear.Linear, which is not loaded, since that could run code"),
        (with_other_keys, (), "G_A.pth does not fit generator_ab: model.1.weight is missing"),
        (with_grey_images, (), "fit generator_ab: model.1.weight is (3, 1, 7, 7) instead of (3, 3, 7, 7)."),
        (with_another_depth, (), "latest_net_G_B.pth has the generator.blocks 6, but"),
        (lambda folder: None, ("--generator.width", 64), "generator.width = 64 contradicts"),
        (
            lambda folder: None,
            ("--format", "cyclegn"),
            "no format 'cyclegn'; it has cyclegan. Did you mean 'cyclegan'?",
        ),
        (lambda folder: None, ("--epoch", "../200"), "--epoch ../200 is not allowed; give latest, or the number"),
        (lambda folder: shutil.rmtree(folder), (), "There is no folder"),
        (in_a_file, (), "is a file; give the folder that it is in"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence_and_no_run(
    spoil: Callable[[Path], Any],
    options: tuple[object, ...],
    expected: str,
    files: Path,
    importing: Callable[..., Result],
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(files, tmp_path / "files")
    spoil(folder)
    refused = importing(folder, *options)
    assert refused.code == 2
    assert expected in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "runs/horses").exists()


def test_pix2pix_goes_to_the_projects_networks_and_back_with_equal_outputs(tmp_path: Path) -> None:
    sizes = {"generator": {"width": 2, "levels": 6}, "discriminator": {"width": 3}}
    run = make_run(tmp_path / "run", "pix2pix", [["recogniser", "generator", "discriminator"]], params=sizes)
    publish_initial_versions(run)
    shown = typed("export", run.path, "--format", "pix2pix", "--out", tmp_path / "files")
    assert [line.partition(": ")[2] for line in shown.out.splitlines()] == ["generator v0", "discriminator v0"]
    model, images = modtrain.load(run), torch.rand(2, 6, 64, 64) * 2 - 1
    theirs = {
        "generator": ("latest_net_G.pth", published_unet(2, 6), images[:, :3]),
        "discriminator": ("latest_net_D.pth", published_discriminator(3, 6, is_normalised_by_batch=True), images),
    }
    for module, (name, net, given) in theirs.items():
        tensors = tensors_of(tmp_path / "files", name)
        net.load_state_dict(tensors, strict=True)
        with torch.no_grad():
            expected, ours = net.eval()["model"](given), model.networks[module].eval()(given)  # type: ignore[index]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
        old = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "files" / name)
    back = ("--recipe", "pix2pix", "--root", tmp_path, "--name", "back", "--no-check")
    shown = typed("import", tmp_path / "files", *back)
    assert (shown.code, shown.out.count("random weights")) == (0, 1)
    assert "generator.width 2, generator.levels 6, discriminator.width 3" in shown.out
    again = modtrain.load(tmp_path / "back")
    for module in theirs:
        for ours, other in zip(*(each.networks[module].state_dict().values() for each in (model, again)), strict=True):
            assert torch.equal(ours, other)


def examples_generator(noise: int, width: int) -> torch.nn.Module:
    """`netG` of PyTorch's DCGAN example, for 16 pixels."""
    main = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(noise, 2 * width, 4, 1, 0, bias=False),
        torch.nn.BatchNorm2d(2 * width),
        torch.nn.ReLU(True),
        torch.nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(width),
        torch.nn.ReLU(True),
        torch.nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False),
        torch.nn.Tanh(),
    )
    return torch.nn.ModuleDict({"main": main})


def examples_discriminator(width: int) -> torch.nn.Module:
    """`netD` of the same, without its sigmoid."""
    main = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 4, 2, 1, bias=False),
        torch.nn.LeakyReLU(0.2, inplace=True),
        torch.nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(2 * width),
        torch.nn.LeakyReLU(0.2, inplace=True),
        torch.nn.Conv2d(2 * width, 1, 4, 1, 0, bias=False),
    )
    return torch.nn.ModuleDict({"main": main})


def test_dcgan_begins_with_the_files_of_pytorchs_example_and_is_exported_with_equal_outputs(tmp_path: Path) -> None:
    theirs = {"G": examples_generator(6, 3), "D": examples_discriminator(5)}
    (tmp_path / "files").mkdir()
    for letter, net in theirs.items():
        torch.save(net.state_dict(), tmp_path / f"files/net{letter}_epoch_24.pth")
    back = ("--recipe", "dcgan", "--root", tmp_path, "--name", "begun", "--no-check", "--epoch", 24)
    shown = typed("import", tmp_path / "files", *back)
    assert shown.code == 0, shown.err
    for name in ("noise_size 6", "crop_size 16", "generator.width 3", "discriminator.width 5"):
        assert name in " ".join(shown.out.split())
    assert typed("export", tmp_path / "begun", "--out", tmp_path / "out").code == 0
    model, noise = modtrain.load(tmp_path / "begun", device="cpu"), torch.randn(4, 6)
    theirs["G"].load_state_dict(tensors_of(tmp_path / "out", "netG_epoch_latest.pth"), strict=True)
    with torch.no_grad():
        images = theirs["G"].eval()["main"](noise[..., None, None])  # type: ignore[index]
        torch.testing.assert_close(model.networks["generator"](noise), images)
        judged = theirs["D"].eval()["main"](images).flatten()  # type: ignore[index]
        torch.testing.assert_close(model.networks["discriminator"](images), judged)


RECIPE = f"""
import dataclasses, sys
sys.path.insert(0, {str(SUPPORT)!r})
from painting import recipe as painting
from modtrain.recipes.formats import Format, WeightsFile

def names(net):
    return {{name: "net." + name for name in net.state_dict()}}

files = Format(files={{"painter": WeightsFile(name="painter-{{epoch}}.pth", weights=names)}})
recipe = dataclasses.replace(painting, formats={{"own": files}})
"""


def test_a_recipe_of_ones_own_exports_the_moving_average_of_the_version_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(RECIPE)
    run = make_run(tmp_path / "run", tmp_path / "own.py", [["painter", "critic"]], epochs=1)
    finish(run)
    shown = typed("export", run.path, "--version", 1, "--out", tmp_path)
    assert shown.out == f"{tmp_path / 'painter-latest.pth'}: painter v1, moving average\n"
    average = modtrain.load(run, version=1).networks["painter"].state_dict()
    assert all(
        torch.equal(value, average[name[4:]]) for name, value in tensors_of(tmp_path, "painter-latest.pth").items()
    )


def test_formats_of_other_modules_and_recipes_without_any_are_refused(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    foreign = Format(files={"painter": WeightsFile(name="x.pth", weights=lambda net: {})})
    with pytest.raises(
        InputError, match="The format 'own' has a file of 'painter', but the recipe has generator, disc"
    ):
        dataclasses.replace(recipe, formats={"own": foreign})
    with pytest.raises(InputError, match=r"give formats=\{'name': Format\(files=...\)\}"):
        dataclasses.replace(recipe, formats={"own": "x.pth"})
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]])
    assert typed("export", run.path, "--out", tmp_path).err.endswith(
        "tiny.py has no formats; give it one to exchange files with another project.\n"
    )
