"""What PBS answers with a server's defaults, or not at all, as a real OpenPBS 23.06 does: no job is lost by it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modtrain.dashboard.page_data import Source
from modtrain.errors import BackendSilent
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState
from modtrain.scheduling.backends.pbs import PbsBackend
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_record import JobId, Record
from modtrain.scheduling.launcher import Launch
from modtrain.scheduling.launcher_lock import release
from modtrain.scheduling.profile import Profile
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, SweepRecord, new_sweep
from tests.support import SUPPORT
from tests.support.command import typed, until
from tests.support.executable import executable
from tests.support.fake_pbs import FakePbs, fake_pbs
from tests.support.faults import Faults
from tests.support.launches import pid_after
from tests.support.runs import make_run

TINY = SUPPORT / "tiny.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    with fake_pbs(tmp_path_factory.mktemp("pbs") / "pbs") as server:
        yield server


@pytest.fixture
def pbs(server: FakePbs, monkeypatch: pytest.MonkeyPatch) -> FakePbs:
    monkeypatch.setenv("PATH", server.env["PATH"])
    return server


def jobs(folder: Path, count: int = 1, *command: str) -> list[Job]:
    return [Job(name=f"job{n}", command=command or ("sleep", "60"), log=folder / f"{n}.log") for n in range(count)]


def backend(**options: object) -> PbsBackend:
    return PbsBackend(BackendOptions(profile=Profile().with_values({"dialect": "pbspro", **options}, "The test")))


def phases(states: Mapping[str, JobState]) -> list[str]:
    return [state.phase for state in states.values()]


def test_a_server_without_job_history_is_asked_in_a_way_that_it_answers(pbs: FakePbs, tmp_path: Path) -> None:
    with pbs.changed(history=False):
        assert pbs.run("qstat", "-x", "-f", "1").returncode == 0, "as the real one"
        site = backend()
        ids = site.submit(jobs(tmp_path, 2))
        until(lambda: phases(site.status(ids)) == ["running", "running"])
        site.cancel(ids[:1])
        until(lambda: phases(site.status(ids)) == ["ended", "running"])
        site.cancel(ids)
        assert phases(site.status(ids)) == ["ended", "ended"]
        assert pbs.state(ids[1].rpartition("@")[2]) == "F", "cancel has reached it"


def test_a_server_that_is_away_is_one_sentence_and_no_job_counts_as_gone(pbs: FakePbs, tmp_path: Path) -> None:
    site = backend()
    ids = site.submit(jobs(tmp_path, 3, "true"))
    with pbs.changed(answers=False):
        with pytest.raises(BackendSilent) as error:
            site.status(ids)
        assert str(error.value) == (
            "qstat does not answer: Connection refused qstat: cannot connect to server fakepbs (errno=15010)"
        )
        with pytest.raises(BackendSilent, match=r"qsub: cannot connect to server fakepbs \(errno=15010\)"):
            site.submit(jobs(tmp_path / "more"))
        with pytest.raises(BackendSilent):
            site.cancel(ids)
    until(lambda: phases(site.status(ids)) == ["ended"] * 3)


@pytest.mark.parametrize(
    ("answer", "is_gone"),
    [
        ("echo 'qstat: Unknown Job Id 7.pbs1' >&2; exit 153", True),
        ("echo 'qstat: 7.pbs1 Job has finished, use -x or -H to obtain historical job information' >&2; exit 35", True),
        ("exit 153", True),  # Torque's commands on Slurm
        ("echo 'qstat: Unknown Job Id 8.pbs1' >&2; echo 'qstat: Permission denied' >&2; exit 153", False),
        ("echo 'qstat: something that is not known here' >&2", False),
        ("echo 'qstat: End of File' >&2; exit 153", False),
        ("exit 255", False),
    ],
)
def test_a_job_is_gone_only_where_the_answer_says_so(
    answer: str, is_gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "bin" / "qstat", answer)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    id = f"{tmp_path}/0.journal@7.pbs1"
    if is_gone:
        faults = Faults(tmp_path, lambda number, name: False)
        faults.install(monkeypatch)
        assert backend().status([id])[id].phase == "unknown"
        assert sum(call.endswith("/0.journal") for call in faults.calls) == 2, (
            "before the question and after the answer"
        )
        return
    with pytest.raises(BackendSilent, match=r"^qstat does not answer: "):
        backend().status([id])


def test_a_run_whose_next_job_is_refused_says_so_and_what_to_do(pbs: FakePbs, tmp_path: Path) -> None:
    launch = ("launch", "--backend", "pbs", "--recipe", SUPPORT / "tiny.py", "--root", tmp_path, "--name", "apples")
    with pbs.changed(flatuid=False):
        result = typed(*launch, "--nodes", 1, "--epochs", 500, "--set", "pause_s=0.05", "--publish-before-s", 1)
        assert result.code == 0, result
        run = Run.open(tmp_path / "apples")
        os.kill(pid_after(run, "generator", steps=2), signal.SIGUSR2)
        until(lambda: "refused" in (run.path / "jobs" / "0.journal").read_text())
    says = (
        "generator + discriminator has left to be continued, and the scheduler refused the next job (qsub: Bad UID for "
        "job execution)."
    )
    alarms = json.loads(typed("status", run.path, "--json").out)["alarms"]
    assert [alarm["says"] for alarm in alarms] == [says]
    assert "`--chain 10`" in alarms[0]["do"]
    assert "`flatuid`" in alarms[0]["do"]
    (row,) = json.loads(typed("watch", tmp_path, "--json").out)["runs"]
    assert [alarm["says"] for alarm in row["alarms"]] == [says]


def test_a_job_that_was_submitted_by_hand_is_known_once_its_worker_has_begun(pbs: FakePbs, tmp_path: Path) -> None:
    launch = ("launch", "--backend", "pbs", "--recipe", SUPPORT / "tiny.py", "--root", tmp_path, "--name", "apples")
    assert typed(*launch, "--nodes", 1, "--epochs", 500, "--set", "pause_s=0.05", "--dry-run").code == 0
    run = Run.open(tmp_path / "apples")
    id = pbs.run("qsub", str(run.jobs_path / "0.sh")).stdout.strip()
    pid_after(run, "generator", steps=2)
    (worker,) = json.loads(typed("status", run.path, "--json").out)["workers"]
    assert (worker["job"], worker["job_state"], worker["state"]) == (id, "running", "running")
    again = typed("launch", run.path)
    assert again.code == 0
    assert re.search(rf"live already +{re.escape(id)}", again.out)
    assert "Ended 1 job of apples." in typed("cancel", run.path).out
    assert pbs.state(id) == "F"


def test_lists_and_pages_know_of_a_job_that_was_cancelled_in_the_queue_as_status_does(
    pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = BackendOptions(profile=Profile(dialect="pbspro", directives=("-h",)))
    ids = {}
    for name in ("held", "cancelled"):
        launch = Launch(make_run(tmp_path / name, TINY, [["generator", "discriminator"]]), "pbs", options)
        (member,) = launch.start()
        release(launch.run)  # as if this process, which waits for nothing, had ended
        ids[name] = JobId("pbs", str(member.id))
    config = Config(recipe=str(TINY), epochs=1, nodes=1)
    sweep = Sweep.create(tmp_path / "rates", new_sweep(config, {"lr": [0.01, 0.02]}, metric="mean"))
    arrays = Record(backend="pbs", options=options, jobs=dict(enumerate(ids.values())))
    sweep.write_record(SweepRecord(arrays=arrays, backend="pbs", options=options))
    seldom, before = Source(tmp_path), len(pbs.calls("qstat"))
    for _ in range(3):
        seldom.runs()
    until(lambda: len(pbs.calls("qstat")) > before)
    seldom.runs()
    (asked,) = pbs.calls("qstat")[before:]
    assert {*asked[-2:]} == {id.id.rpartition("@")[2] for id in ids.values()}, "once for all"
    monkeypatch.setattr("modtrain.dashboard.page_data.JOBS_S", 0.0)
    source = Source(tmp_path)

    def states() -> dict[str, Any]:
        rows = source.runs()["runs"]
        return {row["name"]: row["counts"] if row["kind"] == "sweep" else row["state"] for row in rows}

    assert states() == {"held": "queued", "cancelled": "queued", "rates": {"queued": 2}}
    pbs.run("qdel", ids["cancelled"].id.rpartition("@")[2])
    expected = {"held": "queued", "cancelled": "lost", "rates": {"queued": 1, "created": 1}}
    until(lambda: states() == expected, timeout_s=30)
    assert {name: trial["state"] for name, trial in enumerate(source.sweep("rates")["trials"])} == {
        0: "queued",
        1: "created",
    }
    listed = {row["name"]: row for row in json.loads(typed("watch", tmp_path, "--json").out)["runs"]}
    status = json.loads(typed("status", tmp_path / "cancelled", "--json").out)
    assert listed["cancelled"]["state"] == status["state"] == "lost"
    assert listed["cancelled"]["alarms"] == status["alarms"] == source.run("cancelled")["alarms"]
    with pbs.changed(answers=False):
        silent = until(lambda: source.runs()["silent"])
        assert silent.startswith("qstat does not answer: Connection refused")
        assert silent.endswith(": what waits for it is shown as of its last answer.")
        assert states() == expected
    assert until(lambda: source.runs()["silent"] == "")
    launch.backend.cancel([job.id for job in ids.values()])


@pytest.mark.parametrize("history", [True, False])
def test_a_dependency_on_an_unknown_job_says_why_the_job_has_ended(history: bool, pbs: FakePbs, tmp_path: Path) -> None:
    launch = ("launch", "--backend", "pbs", "--recipe", SUPPORT / "tiny.py", "--root", tmp_path, "--name", "apples")
    with pbs.changed(history=history):
        assert typed(*launch, "--nodes", 1, "--dependency", "afterok:9999").code == 0
        (alarm,) = json.loads(typed("status", tmp_path / "apples", "--json").out)["alarms"]
    assert alarm["says"].startswith("generator + discriminator has never begun: its job ended before it began")
    assert alarm["says"].endswith("; what it depends on, afterok:9999, is unknown or has failed.")
    assert "submits it again" in alarm["do"]


def test_a_job_that_is_held_or_waits_for_another_one_says_so(pbs: FakePbs, tmp_path: Path) -> None:
    held = backend(directives=["-h"])
    (id,) = held.submit(jobs(tmp_path))
    number = id.rpartition("@")[2]
    assert held.status([id])[id].reason == f"it is held by you (Hold_Types = u); `qrls {number}` releases it"
    after = backend(dependency=f"afterok:{number}")
    (waiting,) = after.submit(jobs(tmp_path / "after"))
    assert after.status([waiting])[waiting].reason == f"it waits for other jobs (afterok:{number}@fakepbs)"
    held.cancel([id, waiting])
