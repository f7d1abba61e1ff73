"""The code that a run's folder names: what is executed, what is refused before it is, and what never executes any."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.recipes import trust
from modtrain.recipes.loading import recipe_of, recipe_sha256
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.run import Run
from modtrain.training.evaluation import evaluate
from modtrain.training.inference.model import load
from tests.support import runs
from tests.support.command import Terminal

TOGETHER = [["generator", "discriminator"]]
OTHER_USER = 12345


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    run = runs.make_run(tmp_path_factory.mktemp("trust") / "finished", tiny_recipe, TOGETHER, epochs=1)
    runs.finish(run)
    return run


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a file another user's: only root can do that for real."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, OTHER_USER, -1)
        else:
            own = trust.is_own
            monkeypatch.setattr(trust, "is_own", lambda other: own(other) and other.resolve() != path.resolve())

    return give


class Shared:
    """A copy of a run, and a recipe or tracker file that records that it is executed."""

    def __init__(self, run: Run, folder: Path, tiny: Path) -> None:
        self.path, self.mark = folder / "runs" / "shared", folder / "executed"
        shutil.copytree(run.path, self.path)
        self.text = tiny.read_text() + f"\nopen({str(self.mark)!r}, 'w').close()\n"

    def name(self, file: Path, **more: Any) -> Run:
        """The recipe file is written, and named by the run with its checksum."""
        file.parent.mkdir(exist_ok=True)
        file.write_text(self.text)
        self.write(recipe=str(file), recipe_sha256=recipe_sha256(str(file)), **more)
        return Run.open(self.path)

    def write(self, **values: Any) -> None:
        manifest = self.path / "run.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))

    @property
    def is_executed(self) -> bool:
        return self.mark.exists()


@pytest.fixture
def shared(finished: Run, tmp_path: Path, tiny_recipe: Path) -> Shared:
    return Shared(finished, tmp_path, tiny_recipe)


CALLS: dict[str, Callable[[Run], object]] = {
    "worker": lambda run: runs.finish(run),
    "evaluate": lambda run: evaluate(run, device="cpu"),
    "load": lambda run: load(run, device="cpu"),
    "launch": lambda run: plan_run(find_target(Config(root=str(run.path.parent), name=run.name), trusted=run.trusted)),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_edited_recipe_is_not_executed_before_it_is_trusted(call: str, shared: Shared, tmp_path: Path) -> None:
    run = shared.name(tmp_path / "code" / "mine.py")
    shared.write(recipe_sha256="0" * 64)
    with pytest.raises(InputError, match=r"mine.py has changed since shared was created.*--trust-recipe"):
        CALLS[call](Run.open(run.path))
    assert not shared.is_executed
    CALLS[call](Run.open(run.path, trusted=True))
    assert shared.is_executed


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("place", ["runs/shared/evil.py", "runs/evil.py", "elsewhere/evil.py"])
def test_the_file_of_another_user_is_not_executed(
    call: str, place: str, shared: Shared, tmp_path: Path, give_away: Callable[[Path], None]
) -> None:
    run = shared.name(tmp_path / place)
    give_away(tmp_path / place)
    give_away(run.path / "run.json")
    with pytest.raises(InputError, match=r"evil.py is .* belongs to another user; read it, then .*--trust-recipe"):
        CALLS[call](run)
    assert not shared.is_executed


def test_a_tracker_of_another_user_is_not_executed(
    shared: Shared, tmp_path: Path, give_away: Callable[[Path], None], tiny_recipe: Path
) -> None:
    tracker = shared.path / "tracker.py"
    tracker.write_text(f"open({str(shared.mark)!r}, 'w').close()")
    shared.write(track=[str(tracker)])
    give_away(tracker)
    for call in CALLS.values():
        with pytest.raises(InputError, match=r"The tracker .*tracker.py is in the folder of shared"):
            call(Run.open(shared.path))
    assert not shared.is_executed


def test_a_file_that_every_user_can_write_to_is_not_executed_in_or_beside_the_run(
    shared: Shared, tmp_path: Path
) -> None:
    for place in ("runs/shared/mine.py", "runs/mine.py", "elsewhere/mine.py"):
        run = shared.name(tmp_path / place)
        (tmp_path / place).chmod(0o666)
        if place.startswith("runs"):
            with pytest.raises(InputError, match="every user can write to it"):
                recipe_of(run)
            assert not shared.is_executed
        else:
            recipe_of(run)


def test_the_chosen_recipe_of_another_user_is_executed_as_it_was_chosen(
    shared: Shared, tmp_path: Path, give_away: Callable[[Path], None]
) -> None:
    """The run is this user's, and the recipe in a folder of a colleague."""
    run = shared.name(tmp_path / "lab" / "gan.py")
    give_away(tmp_path / "lab" / "gan.py")
    recipe_of(run)
    assert shared.is_executed


def test_a_built_in_recipe_is_executed_in_the_run_of_another_user(
    shared: Shared, give_away: Callable[[Path], None]
) -> None:
    shared.write(recipe="latent-translation", recipe_sha256=None)
    give_away(shared.path / "run.json")
    assert recipe_of(Run.open(shared.path)).modules


def test_bytecode_beside_a_recipe_is_not_executed_in_its_place(shared: Shared, tmp_path: Path) -> None:
    """Python takes bytecode where time and size of the source agree with it, whatever it holds."""
    import py_compile

    path = tmp_path / "code" / "mine.py"
    run = shared.name(path)
    sound, times = path.read_bytes(), (path.stat().st_atime, path.stat().st_mtime)
    path.write_bytes(sound.replace(b"executed", b"bytecode"))
    os.utime(path, times)
    py_compile.compile(str(path))
    path.write_bytes(sound)
    os.utime(path, times)
    recipe_of(run)
    assert shared.is_executed
    assert not (tmp_path / "bytecode").exists()


def test_only_python_source_is_a_recipe(shared: Shared, tmp_path: Path) -> None:
    extension = tmp_path / "evil.so"
    extension.write_bytes(b"\x7fELF")
    shared.write(recipe=str(extension), recipe_sha256=None)
    with pytest.raises(InputError, match=r"evil.so is not a Python file"):
        recipe_of(Run.open(shared.path))


def test_a_new_run_is_refused_before_its_workers_refuse_it(
    tmp_path: Path, tiny_recipe: Path, give_away: Callable[[Path], None]
) -> None:
    shutil.copy(tiny_recipe, tmp_path / "gan.py")
    give_away(tmp_path / "gan.py")
    config = Config(recipe=str(tmp_path / "gan.py"), root=str(tmp_path), name="new")
    with pytest.raises(InputError, match="is beside the folder of new, and it belongs to another user"):
        plan_run(find_target(config))
    assert plan_run(find_target(config, trusted=True)).run.trusted


def test_a_trusted_launch_of_an_edited_recipe_is_noted_and_later_commands_accept_it(
    shared: Shared, tmp_path: Path
) -> None:
    file = tmp_path / "code" / "mine.py"
    shared.name(file)
    file.write_text(shared.text + "# edited\n")
    plan = plan_run(find_target(Config(root=str(shared.path.parent), name="shared", epochs=2), trusted=True))
    assert f"Takes the recipe {file} as it is now: it has changed since the run was created." in plan.notes
    plan.write()
    run = Run.open(shared.path)
    assert [change.name for change in run.spec.changes] == ["epochs", "recipe_sha256"]
    assert run.spec.recipe_sha256 == recipe_sha256(str(file))
    runs.finish(run)


@pytest.mark.parametrize("command", ["launch", "sweep"])
def test_the_workers_of_a_trusted_launch_trust_it(
    command: str, tmp_path: Path, tiny_recipe: Path, type_: Terminal, give_away: Callable[[Path], None]
) -> None:
    """The file is beside the run and another user's: each worker would refuse it."""
    shutil.copy(tiny_recipe, tmp_path / "mine.py")
    give_away(tmp_path / "mine.py")
    words = ["--recipe", tmp_path / "mine.py", "--root", tmp_path, "--name", "new", "--backend", "slurm", "--dry-run"]
    words += ["--vary", "seed=1,2"] if command == "sweep" else []
    assert "--trust-recipe" in type_(command, *words).err
    scripts = type_(command, *words, "--trust-recipe").out
    assert scripts.count("--trust-recipe") == scripts.count("--threads") > 0


def test_the_command_line_trusts_with_an_option(
    shared: Shared, tmp_path: Path, type_: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "code" / "mine.py"
    shared.name(file)
    image = tmp_path / "image.png"
    image.write_bytes(b"no image")
    modules = ("--modules", "generator,discriminator")
    said = f"Takes the recipe {file} as it is now: it has changed since shared was created."
    for command in (("evaluate", shared.path), ("apply", shared.path, image), ("worker", shared.path, *modules)):
        shared.write(recipe_sha256="0" * 64, changes=[])
        assert (type_(*command).code, shared.is_executed) == (2, False)
        caplog.clear()
        type_(*command, "--trust-recipe")
        assert (caplog.messages.count(said), shared.is_executed) == (1, True)
        assert [change.name for change in Run.open(shared.path).spec.changes] == ["recipe_sha256"]
        shared.mark.unlink()
        assert "has changed" not in type_(*command).err  # it is not asked for again
        assert shared.is_executed
        shared.mark.unlink()


def test_a_reader_that_trusts_a_recipe_needs_no_permission_to_note_it(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared.name(tmp_path / "code" / "mine.py")
    shared.write(recipe_sha256="0" * 64)
    refused = []

    def replace_file(path: Path, content: bytes) -> None:
        refused.append(path)
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:  # root may write everywhere
        patch.setattr("modtrain.storage.filesystem.replace_file", replace_file)
        assert load(Run.open(shared.path, trusted=True), device="cpu").versions
    assert refused == [shared.path / "run.json"]
    assert f"That could not be noted in {shared.path}/run.json: Permission denied." in caplog.messages
    with pytest.raises(InputError, match="has changed since shared was created"):
        load(Run.open(shared.path), device="cpu")


@pytest.mark.parametrize("command", ["status", "watch", "log", "history", "stop", "cancel", "dashboard"])
def test_commands_that_look_at_a_run_execute_no_code_of_its_folder(
    command: str, shared: Shared, tmp_path: Path, type_: Terminal
) -> None:
    run = shared.name(shared.path / "evil.py", track=[str(shared.path / "evil.py")])
    evil = str(shared.path / "evil.py")
    (run.path / "jobs").mkdir()
    jobs = {"backend": evil, "address": None, "profile": {}, "jobs": {"0": {"backend": evil, "id": "1"}}}
    (run.path / "jobs" / "jobs.json").write_text(json.dumps(jobs))
    more = {"watch": ["--json"], "dashboard": ["--export", tmp_path / "pages"]}.get(command, [])
    assert type_(command, run.path if command != "dashboard" else run.path.parent, *more).code == 0
    assert not shared.is_executed
    assert not [name for name in sys.modules if "evil" in name]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"backend": "slurm", "profile": {"prologue": ["touch executed"]}}, "a launch uses prologue of it"),
        ({"backend": "slurm", "profile": {"template": "/evil.sh", "python": "evil"}}, "python, template"),
        ({"backend": "ray", "address": "10.0.0.1:6379"}, "the address 10.0.0.1:6379"),
        ({"backend": "./evil.py"}, "the backend ./evil.py"),
        ({"backend": "local", "jobs": {"0": {"backend": "./evil.py", "id": "1"}}}, "the backend ./evil.py"),
    ],
)
def test_a_launch_does_not_execute_the_job_options_of_another_user(
    values: dict[str, Any],
    sentence: str,
    shared: Shared,
    give_away: Callable[[Path], None],
    type_: Terminal,
) -> None:
    record = shared.path / "jobs" / "jobs.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"profile": {}, "jobs": {}} | values))
    give_away(record)
    refused = type_("launch", shared.path)
    assert (refused.code, sentence in refused.err, "--trust-recipe" in refused.err) == (2, True, True), refused.err


def test_cancel_asks_no_cluster_that_another_user_names(
    shared: Shared, give_away: Callable[[Path], None], type_: Terminal
) -> None:
    record = shared.path / "jobs" / "jobs.json"
    record.parent.mkdir()
    jobs = {"0": {"backend": "ray", "id": "shared.generator@1"}}
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        record.write_text(json.dumps({"backend": "ray", "address": address, "profile": {}, "jobs": jobs}))
        give_away(record)
        refused = type_("cancel", shared.path)
        cluster.setblocking(False)
        with pytest.raises(BlockingIOError):
            cluster.accept()
    assert (refused.code, f"names the cluster at {address}" in refused.err) == (2, True)
