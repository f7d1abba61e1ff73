"""`modtrain doctor` in sound folders, and in some that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modtrain.errors import InputError
from modtrain.storage import doctor
from modtrain.storage.doctor import Check, Report, examine
from modtrain.storage.doctor_peer import MEETING
from tests.support.store_faults import mounts


def of(report: Report, name: str) -> Check:
    """The check of this name."""
    [check] = [check for check in report.checks if check.name == name]
    return check


def test_a_sound_folder_passes_every_check_and_is_left_as_it_was(tmp_path: Path) -> None:
    report = examine(tmp_path, size_mb=1)
    assert [check for check in report.checks if check.verdict == "fail"] == []
    assert not report.failed
    assert {"rename", "fsync", "processes: race", "space", "group"} <= {check.name for check in report.checks}
    assert [(cost.name, cost.size_mb) for cost in report.costs] == [("publish", 1), ("pull", 1)]
    assert all(cost.median_ms > 0 and cost.mb_per_s > 0 for cost in report.costs)
    assert os.listdir(tmp_path) == []


def test_a_report_has_a_form_for_programs(tmp_path: Path) -> None:
    report = Report(path="p", checks=[Check(name="rename", verdict="fail", says="no")])
    values = json.loads(json.dumps(report.as_dict()))
    assert values["failed"] is True
    assert values["checks"] == [{"name": "rename", "verdict": "fail", "says": "no", "advice": ""}]


def test_a_folder_that_cannot_be_examined_is_named_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; name a folder"):
        examine(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is not a folder"):
        examine(tmp_path / "file")
    with (
        mounts.tmpfs(tmp_path / "readonly", "ro") as path,
        pytest.raises(InputError, match=r"cannot be written to \(Read-only file system\)"),
    ):
        examine(path)


def test_a_full_file_system_fails_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "full", "size=1m") as path:
        (path / "ballast").write_bytes(bytes(2**20))
        report = examine(path, size_mb=1)
        assert report.failed
        assert of(report, "space").verdict == "fail"
        assert "No space left on device" in of(report, "publish").says
        assert "quota" in of(report, "publish").advice
        assert os.listdir(path) == ["ballast"]


def test_few_free_inodes_fail(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "few", "nr_inodes=90") as path:
        assert of(examine(path, size_mb=0.01), "inodes").verdict == "fail"


def test_a_file_system_in_memory_is_a_warning(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "memory", "size=50m") as path:
        report = examine(path, size_mb=0.1)
        assert of(report, "file system").verdict == "warn"
        assert not report.failed


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_umask_that_hides_checkpoints_from_the_group_is_a_warning(tmp_path: Path) -> None:
    group = of(examine(tmp_path, size_mb=0.01), "group")
    assert group.verdict == "warn"
    assert "cannot read published files (-rw-------" in group.says
    assert "umask 027" in group.advice


def test_a_shared_folder_without_the_setgid_bit_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    os.chown(tmp_path, -1, os.getgid() + 4321)
    group = of(examine(tmp_path, size_mb=0.01), "group")
    assert (group.verdict, group.advice) == ("warn", f"If others share the runs: `chmod g+s {tmp_path}`.")
    tmp_path.chmod(0o2775)
    assert of(examine(tmp_path, size_mb=0.01), "group").verdict == "ok"


def test_a_name_that_two_processes_both_got_is_a_failed_check() -> None:
    findings = Report(path="p")
    doctor._note_probe(findings, "peer", "the node n2", 6.5, 3)
    assert [check.verdict for check in findings.checks] == ["fail", "warn"]
    assert "both got the same name, 3 times of 40" in findings.checks[0].says
    assert findings.checks[1].advice == "Leave more than 6 s between exchange points."


def test_two_nodes_with_stale_caches_find_each_other_and_each_says_how_late_it_sees_the_other(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    code = (
        "import json, sys; from pathlib import Path; from modtrain.storage.doctor import examine;"
        "sys.stdout.write(json.dumps(examine(Path(sys.argv[1]), size_mb=1, peer=True).as_dict()))"
    )
    with (
        mounts.client(tmp_path / "a", tmp_path / "shared") as here,
        mounts.client(tmp_path / "b", tmp_path / "shared") as there,
    ):
        command = [sys.executable, "-c", code, str(there)]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        report = examine(here, size_mb=2, peer=True)
        other_report = json.loads(other.communicate(timeout=60)[0])
    assert not report.failed, report
    assert not other_report["failed"], other_report
    assert "exactly one got each of 40 names" in of(report, "peer: race").says
    assert of(report, "peer: visibility").verdict == "ok"
    assert [(cost.name, cost.size_mb) for cost in report.costs[2:]] == [("pull from peer", 1)]
    assert (other_report["costs"][2]["name"], other_report["costs"][2]["size_mb"]) == ("pull from peer", 2)
    assert os.listdir(tmp_path / "shared") == []


def test_the_folder_of_a_killed_doctor_is_not_a_second_node_and_the_report_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / f"{MEETING}dead").mkdir()
    report = examine(tmp_path, size_mb=0.01, peer=True, peer_timeout_s=0.3)
    peer = of(report, "peer")
    assert (peer.verdict, peer.says) == ("fail", "No other node was found within 0.3 s.")
    assert f"Run `modtrain doctor {tmp_path} --peer` on a second node at the same time" in peer.advice
    assert os.listdir(tmp_path) == [f"{MEETING}dead"]
