"""The fake PBS Pro runs, ends, shows and refuses jobs as the real one does."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_pbs import Cluster, FakePbs, fake_pbs

STUBBORN = "trap '' TERM; touch {started}; sleep 60"
REFUSED = [
    ("-N", "two words", "illegal -N value", 2),
    ("-N", "n" * 231, "Job name is too long", 2),
    ("-q", "nowhere", "Unknown queue", 170),
    ("-j", "both", "illegal -j value", 2),
    ("-m", "x", "illegal -m value", 2),
    ("-r", "yes", "illegal -r value", 2),
    ("-o", "gr\u00fcn.log", "illegal -o value", 2),
    ("-J", "1-1", "illegal -J value", 2),
    ("-J", "0-3%0", "Illegal attribute or resource value", 166),
    ("-t", "0-3", "invalid option -- 't'\nusage: qsub", 2),
    ("-v", "A='x", "cannot send environment with the job", 1),
    ("-v", "NOT_SET_ANYWHERE", "cannot send environment with the job", 1),
    ("-W", "depend=later:100", "illegal -W value", 2),
    ("-W", "stagein=a@b:c", "does not simulate -W stagein", 99),
    ("-l", "select=1:gpus=1", "Unknown resource: gpus", 187),
    ("-l", "select=1:ncpus=two", "Illegal attribute or resource value", 166),
    ("-l", "select=1:walltime=60", 'Resource invalid in "select" specification', 4),
    ("-l", "walltime=1h", "Illegal attribute or resource value", 166),
    ("-l", "place=scatter", 'Cannot have "place" without "select"', 7),
    ("-I", "", "does not simulate qsub -I", 99),
]


@pytest.fixture
def pbs(tmp_path: Path) -> Iterator[FakePbs]:
    with fake_pbs(tmp_path / "fake pbs", Cluster(kill_delay_s=0.3)) as fake:
        yield fake


def started(pbs: FakePbs, script: str, *options: str) -> str:
    """Submit a script that touches {started}, and wait until it has."""
    flag = pbs.home.parent / f"started-{time.monotonic_ns()}"
    identifier = pbs.submit(script.format(started=shlex.quote(str(flag))), *options)
    appeared(flag)
    return identifier


def test_a_job_runs_a_copy_in_a_bare_environment_and_brings_its_output_back(
    pbs: FakePbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the caller")
    monkeypatch.setenv("GIVEN", "by name")
    script = pbs.home.parent / "job.sh"
    script.write_text(
        "#!/bin/bash\n#PBS -N shown -l select=1:ncpus=2\n#PBS -v LIST=a,GIVEN\n"
        'sleep 0.2; env -0 | sort -z; echo "in $PWD" >&2; command -v qsub >&2; exit 3\n'
    )
    assert pbs.run("qsub", str(script)).stdout == "100.fakepbs\n"
    script.write_text("#!/bin/bash\necho changed afterwards\n")
    pbs.wait("100")
    seen = dict(item.partition("=")[::2] for item in (script.parent / "shown.o100").read_text().split("\0") if item)
    assert "SECRET" not in seen
    assert (seen["LIST"], seen["GIVEN"], seen["NCPUS"], seen["OMP_NUM_THREADS"]) == ("a", "by name", "2", "2")
    assert (seen["PBS_JOBID"], seen["PBS_JOBNAME"], seen["PBS_QUEUE"]) == ("100.fakepbs", "shown", "workq")
    assert (seen["PBS_O_WORKDIR"], seen["PBS_ENVIRONMENT"]) == (str(script.parent), "PBS_BATCH")
    assert not Path(seen["TMPDIR"]).exists(), "the scratch folder is removed"
    errors = (script.parent / "shown.e100").read_text().splitlines()
    assert errors == [f"in {seen['HOME']}", str(pbs.home / "bin" / "qsub")]
    known = pbs.shown("100")
    assert (known["job_state"], known["Exit_status"], known["run_count"]) == ("F", "3", "1")
    assert known["comment"].endswith("on (n1:ncpus=2) and failed")


def test_output_goes_where_it_was_asked_to(pbs: FakePbs) -> None:
    folder = pbs.home.parent / "logs"
    folder.mkdir()
    pbs.submit("echo out; echo err >&2", "-j", "oe", "-o", "logs/one.txt")
    pbs.submit("echo lost", "-o", "/no/such/folder/x")
    assert pbs.wait("100") == pbs.wait("101") == "F"
    assert (folder / "one.txt").read_text() == "out\nerr\n"
    assert pbs.shown("101")["Exit_status"] == "0"


def test_an_array_runs_each_index_and_never_more_than_its_limit(pbs: FakePbs) -> None:
    script = """
        cd "$PBS_O_WORKDIR"; wait_for() { until [ -e "$1" ]; do sleep 0.02; done; }
        touch seen.$PBS_ARRAY_INDEX run.$PBS_ARRAY_INDEX; ls run.* | wc -l
        case $PBS_ARRAY_INDEX in 1) wait_for seen.2;; 2) wait_for seen.1;; 4) wait_for go;; esac
        sleep 0.1; rm run.$PBS_ARRAY_INDEX; echo $PBS_JOBID $PBS_ARRAY_ID"""
    assert pbs.submit(script, "-J", "1-4%2", "-N", "arr") == "100[].fakepbs"
    assert pbs.wait("100[]", "B") == "B"
    known = pbs.shown("100[]")
    assert (known["array"], known["array_indices_submitted"], known["max_run_subjobs"]) == ("True", "1-4", "2")
    assert pbs.wait("100[1]", "XF", timeout_s=20) == "X", "a finished subjob of an array that goes on"
    listed = pbs.run("qstat", "-t", "100[]").stdout
    assert listed.count("100[") == 5
    (pbs.home.parent / "go").touch()
    pbs.wait("100[]")
    assert pbs.state("100[1]") == "F"
    outputs = [(pbs.home.parent / f"arr.o100.{index}").read_text().split() for index in (1, 2, 3, 4)]
    assert max(int(output[0]) for output in outputs) == 2
    assert [output[1:] for output in outputs] == [[f"100[{n}].fakepbs", "100[].fakepbs"] for n in (1, 2, 3, 4)]
    assert pbs.shown("100[]")["Exit_status"] == "0"


def test_a_full_cluster_queues_in_order(pbs: FakePbs) -> None:
    wide = started(pbs, "touch {started}; sleep 60", "-l", "select=2:ncpus=2")
    pbs.submit("true", "-l", "select=2:ncpus=2")
    pbs.submit("true")
    assert [pbs.state(number) for number in ("100", "101", "102")] == ["R", "Q", "Q"], "none overtakes"
    assert pbs.shown("101")["comment"].startswith("Not Running")
    pbs.run("qdel", wide)
    assert pbs.wait("101") == pbs.wait("102") == "F"
    assert pbs.shown(pbs.submit("true", "-l", "select=1:ncpus=3"))["comment"].startswith("Can Never Run")
    pbs.submit("true")
    assert pbs.wait("104") == "F", "it overtakes what never fits"


def test_walltime_is_enforced_with_a_warning_and_then_without_mercy(pbs: FakePbs) -> None:
    pbs.submit("trap 'echo asked to end; exit 0' TERM; while true; do sleep 0.05; done", "-l", "walltime=0:00:01")
    pbs.submit("trap '' TERM; sleep 60", "-l", "walltime=1")
    for number in ("100", "101"):
        pbs.wait(number)
        known = pbs.shown(number)
        assert known["Exit_status"] == "-29"
        assert known["comment"].endswith("exceeded resource walltime")
        result = (pbs.home.parent / f"STDIN.e{number}").read_text()
        assert re.match(r"=>> PBS: job killed: walltime \d+ exceeded limit 1\n", result)
    assert (pbs.home.parent / "STDIN.o100").read_text() == "asked to end\n"


def test_a_queue_gives_its_walltime_to_jobs_that_ask_for_none(tmp_path: Path) -> None:
    cluster = Cluster(queues=("workq", "short"), limits={"short": "1:30:00"})
    with fake_pbs(tmp_path / "pbs", cluster) as pbs:
        asked = [("-q", "short"), ("-q", "short", "-l", "walltime=60"), ()]
        known = [pbs.shown(pbs.submit("true", *options)) for options in asked]
    assert [each.get("Resource_List.walltime") for each in known] == ["01:30:00", "00:01:00", None]


@pytest.mark.parametrize(("script", "status"), [("touch {started}; sleep 60", "271"), (STUBBORN, "265")], ids=str)
def test_qdel_asks_and_then_kills(pbs: FakePbs, script: str, status: str) -> None:
    identifier = started(pbs, script)
    assert pbs.run("qdel", identifier).returncode == 0
    pbs.wait(identifier)
    known = pbs.shown(identifier)
    assert known["Exit_status"] == status
    assert known["comment"].endswith("and terminated")


def test_qdel_takes_an_array_and_a_subjob(pbs: FakePbs) -> None:
    pbs.submit("sleep 60", "-J", "0-9%1")
    assert pbs.run("qdel", "100[3]", "100[5].fakepbs").returncode == 0
    assert [pbs.state(f"100[{index}]") for index in (2, 3, 4, 5)] == ["Q", "X", "Q", "X"]
    assert pbs.run("qdel", "100[]").returncode == 0
    pbs.wait("100[]")
    assert pbs.shown("100[]")["Exit_status"] == "2"


def test_dependencies_hold_release_and_abort(pbs: FakePbs) -> None:
    pbs.submit('while [ ! -e "$PBS_O_WORKDIR/go" ]; do sleep 0.05; done; exit 1')
    for kind in ("afterok", "afternotok", "afterany"):
        pbs.submit("true", "-W", f"depend={kind}:100")
    pbs.submit("true", "-W", "depend=afterok:102.fakepbs:103")
    pbs.submit("true", "-W", "depend=afterany:4711")
    assert [pbs.state(number) for number in ("101", "102", "103", "104", "105")] == ["H", "H", "H", "H", "F"]
    assert pbs.shown("101")["Hold_Types"] == "s"
    (pbs.home.parent / "go").touch()
    for number in ("101", "102", "103", "104"):
        pbs.wait(number)
    assert pbs.shown("101")["comment"] == "Job deleted as result of dependency on job 100.fakepbs"
    assert [pbs.shown(number).get("Exit_status") for number in ("101", "102", "103", "104")] == [None, "0", "0", "0"]


def test_unknown_and_finished_jobs_are_said_and_the_others_are_shown(pbs: FakePbs) -> None:
    pbs.submit("true")
    pbs.submit("sleep 60")
    pbs.wait("100")
    answer = pbs.run("qstat", "99", "101", "100.fakepbs")
    assert answer.stderr.splitlines() == [
        "qstat: Unknown Job Id 99.fakepbs",
        "qstat: 100.fakepbs Job has finished, use -x or -H to obtain historical job information",
    ]
    assert answer.returncode == 35
    assert [line.split()[0] for line in answer.stdout.splitlines()[2:]] == ["101.fakepbs"]
    assert pbs.run("qstat", "101", "99").returncode == 153
    assert pbs.run("qstat", "101[]").returncode == 153, "it is no array"
    deleted = pbs.run("qdel", "99", "100", "101")
    assert deleted.stderr == "qdel: Unknown Job Id 99.fakepbs\nqdel: Job has finished 100.fakepbs\n"
    assert deleted.returncode == 35
    pbs.wait("101")
    assert pbs.run("qstat").stdout == ""


def test_a_job_whose_node_fails_runs_again_if_it_may(pbs: FakePbs) -> None:
    script = "echo run; touch {started}; sleep 60"
    again, never = started(pbs, script), started(pbs, script, "-r", "n", "-N", "once")
    pbs.fail_node(again)
    pbs.fail_node(never)
    assert (pbs.state(never), pbs.shown(never)["Exit_status"]) == ("F", "-20")
    assert pbs.wait(again, "R") == "R"
    assert pbs.shown(again)["run_count"] == "2"
    pbs.run("qdel", again)


def test_a_job_can_submit_its_successor(pbs: FakePbs) -> None:
    pbs.submit("echo 'echo second' | qsub -N next -o $PBS_O_WORKDIR/next.txt -j oe", "-N", "first")
    pbs.wait("100")
    pbs.wait("101")
    assert (pbs.home.parent / "first.o100").read_text() == "101.fakepbs\n"
    assert (pbs.home.parent / "next.txt").read_text() == "second\n"


def test_the_long_form_is_folded(pbs: FakePbs) -> None:
    pbs.submit("true", "-h", "-v", f"LONG={'x' * 200},COUNT=3")
    folded = pbs.run("qstat", "-f", "100").stdout
    assert folded.startswith("Job Id: 100.fakepbs\n    Job_Name = STDIN\n")
    assert all(len(line.expandtabs()) <= 80 for line in folded.splitlines())
    assert f"LONG={'x' * 200},COUNT=3" in folded.replace("\n\t", "")
    assert pbs.shown("100")["Hold_Types"] == "u"
    pbs.run("qdel", "100")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    """A fake that refuses everything, so that many tests can share it."""
    with fake_pbs(tmp_path_factory.mktemp("idle") / "pbs") as fake:
        yield fake
        assert fake.run("qstat", "-x").stdout == "", "what was refused left a job behind"


@pytest.mark.parametrize(("option", "value", "message", "code"), REFUSED, ids=lambda value: str(value)[:30])
def test_a_bad_option_is_refused_as_the_real_qsub_does(
    idle: FakePbs, option: str, value: str, message: str, code: int
) -> None:
    answer = idle.run("qsub", option, *filter(None, [value]), text="true\n")
    assert message in answer.stderr
    assert (answer.stdout, answer.returncode) == ("", code)


@pytest.mark.parametrize(
    ("line", "code"),
    [("#PBS -t 0-3", 1), ("#PBS -r maybe", 1), ("#PBS -J 0-3 -r n", 1), ("#PBS -N a b", 1), ("#PBS -N 'a b'", 2)],
)
def test_a_bad_directive_is_refused(idle: FakePbs, line: str, code: int) -> None:
    answer = idle.run("qsub", text=f"#!/bin/bash\n{line}\ntrue\n")
    assert (answer.stdout, answer.returncode) == ("", code)
    assert ("qsub: directive error:" in answer.stderr) == (code == 1)


def test_the_command_line_wins_over_directives_which_end_at_the_first_command(pbs: FakePbs) -> None:
    script = "#!/bin/bash\n# PBS -N no\n#PBS -N script\n#PBS -l walltime=1:00:00 -j oe\n\ntrue\n#PBS -N late -j n\n"
    known = pbs.shown(pbs.submit(script, "-l", "walltime=60"))
    assert (known["Job_Name"], known["Join_Path"], known["Resource_List.walltime"]) == ("script", "oe", "00:01:00")
    assert pbs.shown(pbs.submit(script, "-N", "mine"))["Job_Name"] == "mine"


def test_every_call_is_counted(pbs: FakePbs) -> None:
    assert pbs.run("qsub", "--version").stdout == "pbs_version = 23.06.06\n"
    pbs.run("qstat", "-x", "1", "2", "3")
    assert pbs.calls() == [["qsub", "--version"], ["qstat", "-x", "1", "2", "3"]]
    assert pbs.calls("qdel") == []


def appeared(flag: Path) -> None:
    deadline = time.monotonic() + 20
    while not flag.exists():
        assert time.monotonic() < deadline, f"{flag} did not appear"
        time.sleep(0.02)


def running(home: Path) -> list[int]:
    """The processes that carry a node file of this fake."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"PBS_NODEFILE={home}/".encode() in (entry / "environ").read_bytes():
                pids.append(int(entry.name))
    return pids


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with fake_pbs(tmp_path / "pbs", Cluster(kill_delay_s=60)) as pbs:
        loop = "trap '' TERM; while true; do touch {started}; sleep 0.05; done"
        hidden = loop.format(started=tmp_path / "hidden")
        started(pbs, loop)
        pbs.submit(f"setsid -f bash -c {shlex.quote(hidden)}; until [ -e {tmp_path}/hidden ]; do sleep 0.02; done")
        pbs.submit("sleep 60", "-J", "0-9")
        appeared(tmp_path / "hidden")
        assert len(running(pbs.home)) > 1
    assert running(pbs.home) == []
    assert pbs.run("qsub", text="true").returncode == 0, "the folder still answers, and starts nothing"
    assert pbs.state("103") == "Q"


def test_jobs_end_with_the_process_that_made_the_fake(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; sys.path.insert(0, sys.argv[1]); from tests.support.fake_pbs import fake_pbs\n"
        "with fake_pbs(pathlib.Path(sys.argv[2])) as pbs:\n"
        "    pbs.run('qsub', text='touch \"$PBS_O_WORKDIR\"/on; sleep 60'); pbs.wait('100', 'R')\n"
        "    sys.stdin.read(); os._exit(9)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parents[2]), str(tmp_path / "pbs")], stdin=subprocess.PIPE
    )
    appeared(tmp_path / "on")
    assert running(tmp_path / "pbs")
    owner.communicate(b"")
    assert owner.returncode == 9
    deadline = time.monotonic() + 20
    while running(tmp_path / "pbs"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
