"""Creating a folder with its manifest, and reading JSON, on storage that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modtrain.errors import InputError, StorageError
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS, JOBS_FILE
from modtrain.storage.manifest import read_json
from modtrain.storage.run import Run
from tests.support.faults import Faults
from tests.support.runs import make_run

TOGETHER = [["generator", "discriminator"]]


def test_every_new_folder_of_a_run_is_synced_in_the_folder_above_it(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(filesystem, "sync_folder", synced.append)
    run = make_run(tmp_path / "deep" / "runs" / "run", tiny_recipe, TOGETHER)
    run.make_module_folders(["generator"])
    filesystem.make_folder(run.store("generator").checkpoints)
    above = [path for path in synced if filesystem.TEMPORARY not in path.name]
    below = ["", "deep", "deep/runs", "deep/runs/run", "deep/runs/run/modules", "deep/runs/run/modules/generator"]
    assert above == [tmp_path / name for name in below]


def test_a_run_whose_last_sync_fails_is_created_since_it_is_there(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sync = filesystem.sync_folder

    def fail(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        sync(path)

    monkeypatch.setattr(filesystem, "sync_folder", fail)
    assert make_run(tmp_path / "run", tiny_recipe, TOGETHER).modules == ["generator", "discriminator"]
    assert "run reported an error, but succeeded: Input/output error" in caplog.text


def test_only_a_missing_file_counts_as_nothing(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    assert read_json(run.jobs_path / JOBS_FILE) == {}
    (tmp_path / "elsewhere").mkdir()
    (run.path / JOBS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"jobs\.json cannot be read: Not a directory"):
        read_json(run.jobs_path / JOBS_FILE)
    for number, kind, code in ((errno.EIO, StorageError, 6), (errno.EACCES, InputError, 2)):
        faults = Faults(run.path, lambda _, call: "run.json" in call, number)
        with monkeypatch.context() as patch:
            faults.install(patch)
            with pytest.raises(kind, match=rf"run\.json cannot be read: {os.strerror(number)}") as caught:
                Run.open(run.path)
        assert caught.value.exit_code == code
