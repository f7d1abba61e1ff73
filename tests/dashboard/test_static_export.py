"""`modtrain dashboard --export`: pages that open from disk, and a folder that is treated with care."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest

from modtrain.dashboard.page_data import Source
from modtrain.dashboard.static_export import MARK, MOST_CHECKPOINTS, MOST_GRIDS, export
from modtrain.errors import InputError
from modtrain.scheduling.config import Config
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, new_sweep
from tests.support.command import typed
from tests.support.runs import finish
from tests.support.serving import copied, embedded, trained

NAMES = (b"<b>&\"'", b"\xff\xe9", b"two\nlines", b"a b%20c", b"index.html", b"a..b")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    run = trained(tmp_path_factory.mktemp("first"), "one", tiny_recipe)
    line = {"versions": {"generator": 2}, "epochs": {"generator": 2}, "metrics": {"mean": 1.0}, "at": 5.0}
    with (run.path / "evaluation" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**line, "grid": "grid-2-2.png"}) + "\n")
        file.write(json.dumps({**line, "grid": "x.html"}) + "\n")
    (run.path / "evaluation" / "grid-2-2.png").write_bytes(b"\x89PNG")
    (run.path / "evaluation" / "x.html").write_text("<script>alert(1)</script>")
    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    root = tmp_path_factory.mktemp("runs")
    copied(run, root / "one")
    for name in NAMES:
        copied(run, root / os.fsdecode(name))
    (copied(run, root / "broken") / "run.json").write_text("{")
    target = tmp_path_factory.mktemp("exported") / "pages"
    export(root, target)
    return target


def file_of(address: str) -> bytes:
    """What a browser opens for a file:// address."""
    return unquote_to_bytes(urlsplit(address).path)


def test_everything_that_a_page_loads_lies_beside_it(pages: Path) -> None:
    files = [path for path in pages.rglob("index.html") if path.is_file()]
    assert len(files) > 10
    for path in files:
        text = path.read_text()
        for link in re.findall(r'(?:href|src)="([^"#]+)"', text):
            assert not link.startswith(("/", "http:", "https:"))
            assert Path(os.fsdecode(file_of(urljoin(path.as_uri(), link)))).exists(), link
        assert 'data-live="false"' in text
        assert 'data-index="index.html"' in text
        base = re.search('data-base="([^"]*)"', text)
        assert base is not None
        assert Path(os.fsdecode(file_of(urljoin(path.as_uri(), base[1] or "./")))) == pages


def test_every_run_has_its_page_where_its_row_leads(pages: Path) -> None:
    top = pages / "index.html"
    rows = embedded(top.read_text())["runs"]
    assert len(rows) == len(NAMES) + 2
    for row in rows:
        address = urljoin(top.as_uri(), f"run/{row['path']}/index.html")
        data = embedded(Path(os.fsdecode(file_of(address))).read_text())
        assert data["run"]["path"] == row["path"]
        assert bool(data["problem"]) == (row["path"] == "broken")


def test_checkpoints_and_grids_are_there_as_the_page_says(pages: Path) -> None:
    data = embedded((pages / "run/one/index.html").read_text())
    assert data["pages"] == {"generator": [0, 1, 2], "discriminator": [0, 1, 2]}
    assert max(map(len, data["pages"].values())) <= MOST_CHECKPOINTS
    for module, versions in data["pages"].items():
        for version in versions:
            page = embedded((pages / f"checkpoint/one/{module}/{version}/index.html").read_text())
            assert page["version"] == version
            assert not any(file["download"] for file in page["files"])
    assert [grid["file"] for grid in data["grids"]] == ["grid-2-2.png"]
    assert (pages / "grid/one/grid-2-2.png").read_bytes() == b"\x89PNG"
    assert not list(pages.rglob("x.html")), "a file that runs scripts is no picture"
    assert not list(pages.rglob("*.safetensors"))
    assert not list(pages.rglob(".tmp-*"))


def test_trials_that_have_not_begun_are_not_read(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1), {"lr": [0.005, 0.01, 0.02]}, metric="mean")
    Sweep.create(tmp_path / "runs" / "rates", spec)
    asked: list[str] = []
    data = Source.data
    monkeypatch.setattr(Source, "data", lambda self, *key: asked.append("/".join(key)) or data(self, *key))
    assert export(tmp_path / "runs", tmp_path / "pages") == (0, 1, 2)
    assert asked == ["sweep/rates"]
    trials = embedded((tmp_path / "pages/sweep/rates/index.html").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["created"] * 3


def test_an_exported_sweep_has_the_losses_of_its_trials(tmp_path: Path, tiny_recipe: Path) -> None:
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1), {"lr": [0.005, 0.01]}, metric="mean")
    sweep = Sweep.create(tmp_path / "runs" / "rates", spec)
    finish(sweep.begin(0))
    export(tmp_path / "runs", tmp_path / "pages")
    page = embedded((tmp_path / "pages/sweep/rates/index.html").read_text())
    assert page["scalars"] == ["discriminator.loss", "generator.loss"]
    assert {(curve["trial"], curve["name"]) for curve in page["curves"]} >= {(0, name) for name in page["scalars"]}


def test_of_many_grids_an_export_has_some_of_all_times_and_says_how_many_there_are(tmp_path: Path, run: Run) -> None:
    folder = copied(run, tmp_path / "runs" / "one") / "evaluation"
    line = {"epochs": {"generator": 2}, "metrics": {"mean": 1.0}, "at": 5.0}
    with (folder / "metrics.jsonl").open("a") as file:
        for n in range(100, 200):
            (folder / f"grid-{n}.png").write_bytes(b"\x89PNG")
            file.write(json.dumps({**line, "versions": {"generator": n}, "grid": f"grid-{n}.png"}) + "\n")
    export(tmp_path / "runs", tmp_path / "pages")
    page = embedded((tmp_path / "pages/run/one/index.html").read_text())
    files = [grid["file"] for grid in page["grids"]]
    assert page["drawn"] == 101
    assert MOST_GRIDS / 2 < len(files) <= MOST_GRIDS
    assert (files[0], files[-1]) == ("grid-2-2.png", "grid-199.png")
    assert {path.name for path in (tmp_path / "pages/grid/one").iterdir()} == set(files)


def test_a_folder_that_cannot_be_read_costs_its_run_alone(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `chmod 0` makes the checkpoints of a run, but for root."""
    for name in ("a", "b", "c"):
        copied(run, tmp_path / "runs" / name)
    real = CheckpointStore.versions

    def versions(self: CheckpointStore) -> list[int]:
        if self.path.is_relative_to(tmp_path / "runs" / "b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self.checkpoints))
        return real(self)

    monkeypatch.setattr(CheckpointStore, "versions", versions)
    written = export(tmp_path / "runs", tmp_path / "pages")
    assert written == (3, 0, 1 + 3 + 2 * 6)
    problems = {name: embedded((tmp_path / f"pages/run/{name}/index.html").read_text())["problem"] for name in "abc"}
    assert "Permission denied" in problems["b"]
    assert problems["a"] is problems["c"] is None
    assert len(embedded((tmp_path / "pages/index.html").read_text())["runs"]) == 3


def test_a_disk_that_is_full_is_not_a_runs_fault(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(run, tmp_path / "runs" / "one")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        export(tmp_path / "runs", tmp_path / "pages")


def test_a_root_that_is_a_run_may_have_any_name(tmp_path: Path, run: Run) -> None:
    root = copied(run, tmp_path / os.fsdecode(b"od\xffd"))
    export(root, tmp_path / "pages")
    assert "od\\xffd" in (tmp_path / "pages/run/index.html").read_text()


def test_the_next_export_replaces_what_the_last_one_wrote(tmp_path: Path, run: Run) -> None:
    root, target = tmp_path / "runs", tmp_path / "pages"
    copied(run, root / "one")
    copied(run, root / "two")
    export(root, target)
    (target / "notes.txt").write_text("mine")
    shutil.rmtree(root / "two")
    result = typed("dashboard", root, "--export", target)
    assert result.out == f"Wrote 1 run, 8 pages: open {target / 'index.html'}\n"
    assert result.err.splitlines()[-1] == "Exported 1 of 1"
    assert not (target / "run/two").exists()
    assert (target / "run/one/index.html").is_file()
    assert (target / "notes.txt").read_text() == "mine"


def test_what_cannot_be_read_is_not_damaged_and_what_cannot_be_removed_is_not_forgotten(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, target = tmp_path / "runs", tmp_path / "pages"
    copied(run, root / "one")
    export(root, target)
    (root / "one").rename(root / "two")
    unlink, refused = Path.unlink, PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def keep(self: Path, missing_ok: bool = False) -> None:
        if "one" in self.parts:
            raise refused
        unlink(self, missing_ok=missing_ok)

    def fail(self: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", keep)
        with pytest.raises(PermissionError):
            export(root, target)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            export(root, target)
    export(root, target)
    assert not (target / "run/one").exists()


def test_a_forged_mark_removes_nothing_elsewhere(tmp_path: Path, run: Run) -> None:
    root, target, precious = tmp_path / "runs", tmp_path / "pages", tmp_path / "precious"
    copied(run, root / "one")
    precious.mkdir()
    (precious / "file").write_text("mine")
    target.mkdir()
    (target / "link").symlink_to(precious)
    files = ["../precious/file", "%2e%2e/precious/file", "..%2fprecious%2ffile", "link/file", str(precious / "file")]
    (target / MARK).write_text(json.dumps({"files": files}))
    export(root, target)
    assert (precious / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", ["full", "file", "damaged", "inside", "above"])
def test_a_folder_that_is_not_for_it_is_refused(tmp_path: Path, run: Run, kind: str) -> None:
    root, target = tmp_path / "runs", tmp_path / "pages"
    copied(run, root / "one")
    match kind:
        case "full":
            target.mkdir()
            (target / "thesis.tex").write_text("years")
        case "file":
            target.write_text("years")
        case "damaged":
            target.mkdir()
            (target / MARK).write_text("{")
        case "inside":
            target = root / "pages"
        case "above":
            target = tmp_path
    with pytest.raises(InputError, match=r"folder|remove"):
        export(root, target)
    assert not (root / "pages").exists()
    assert not (target / "index.html").exists()
