"""What a scheduler's command prints, and what the user's environment sets: no job is submitted or recorded wrongly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modtrain.errors import BackendSilent, InputError
from modtrain.scheduling.backends.base import BackendOptions, Job
from modtrain.scheduling.backends.batch import BatchBackend
from modtrain.scheduling.backends.pbs import PbsBackend
from modtrain.scheduling.backends.slurm import SlurmBackend
from modtrain.scheduling.profile import Profile
from tests.support.executable import executable

COMMANDS = {"slurm": "sbatch", "pbs": "qsub"}


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that comes first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "bin"


def backend(kind: str, **options: object) -> BatchBackend:
    given = BackendOptions(profile=Profile().with_values(options, "The test"))
    if kind == "slurm":
        return SlurmBackend(given)
    return PbsBackend(BackendOptions(profile=given.profile.with_values({"dialect": "pbspro"}, "The test")))


def job(folder: Path) -> Job:
    return Job(name="job", command=("true",), log=folder / "jobs" / "0.log")


@pytest.mark.parametrize(
    ("kind", "answer", "id"),
    [
        ("slurm", "8812", "8812"),
        ("slurm", "8812;big", "8812"),
        ("slurm", "8812\\nThis job costs 3 credits of your 100.", "8812"),
        ("slurm", "Welcome to the cluster.\\n8812", "8812"),
        ("slurm", "Submitted batch job 8812", None),
        ("slurm", "Project 7 has 12 h left", None),
        ("slurm", "8812\\n8813", None),
        ("slurm", "", None),
        ("pbs", "1234.pbs1", "1234.pbs1"),
        ("pbs", "1234[].pbs-1.example.org", "1234[].pbs-1.example.org"),
        ("pbs", "1234.pbs1\\nYour project has 12.5 hours left.", "1234.pbs1"),
        ("pbs", "Job 1234.pbs1 submitted", None),
        ("pbs", "$(touch canary).pbs1", None),
    ],
)
def test_only_what_looks_like_an_id_is_one_and_any_other_answer_is_quoted(
    kind: str, answer: str, id: str | None, bin: Path, tmp_path: Path
) -> None:
    executable(bin / COMMANDS[kind], f"printf '{answer}\\n'")
    if id is not None:
        (recorded,) = backend(kind).submit([job(tmp_path)])
        assert recorded.rpartition("@")[2] == id
        return
    with pytest.raises(InputError) as error:
        backend(kind).submit([job(tmp_path)])
    assert answer.replace("\\n", " ") in str(error.value)
    assert "\n" not in str(error.value)


def test_lines_of_a_wrapper_in_the_list_of_jobs_are_no_jobs_and_no_list_is_no_answer(bin: Path, tmp_path: Path) -> None:
    ids = [f"{tmp_path}/0.journal@8", f"{tmp_path}/1.journal@9"]
    executable(bin / "squeue", "echo Welcome; echo 'JOBID|STATE|NODELIST|REASON'; echo '8|RUNNING|n1|None'; echo a b")
    assert [state.phase for state in backend("slurm").status(ids).values()] == ["running", "unknown"]
    executable(bin / "squeue", "echo 'squeue: could not ask the controller' >&2")
    with pytest.raises(BackendSilent, match="squeue does not answer: squeue: could not ask the controller"):
        backend("slurm").status(ids)


def test_a_user_s_variables_do_not_change_what_is_submitted(
    bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees = f"env >{tmp_path}/seen; echo 8812"
    for command in COMMANDS.values():
        executable(bin / command, sees)
    broken = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_OUTPUT", "SBATCH_TIMELIMIT", "SBATCH_PARTITION", "PBS_DPREFIX")
    others = ("SLURM_CLUSTERS", "SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX", "MODTRAIN_INDEX", "SBATCH_CLUSTERS")
    for name in (*broken, *others, "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "3")

    def seen(kind: str, **options: object) -> set[str]:
        backend(kind, **options).submit([job(tmp_path)])
        lines = (tmp_path / "seen").read_text().splitlines()
        return {line.partition("=")[0] for line in lines} & {*broken, *others, "SBATCH_ACCOUNT"}

    assert seen("slurm", queue="long", walltime="01:00:00") == {"SBATCH_ACCOUNT"}, (
        "a default that the script leaves open"
    )
    assert seen("slurm", directives=["-A physics"]) == {"SBATCH_PARTITION"}
    assert seen("pbs") == set()


def test_a_job_finds_the_server_that_its_user_has_chosen(
    bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBS_DEFAULT", "pbs 2")
    (script,) = backend("pbs").scripts([job(tmp_path)])
    assert "\nexport PBS_DEFAULT='pbs 2'\n" in script.read_text()


def test_a_job_that_the_scheduler_does_not_end_is_not_called_ended(
    bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.scheduling.backends.batch.CANCEL_S", 0.1)
    executable(bin / "qstat", "printf 'Job Id: 7.pbs1\\n    job_state = R\\n\\n'")
    executable(bin / "qdel", "echo 'qdel: Unauthorized Request 7.pbs1' >&2; exit 159")
    with pytest.raises(BackendSilent, match=r"has not ended 7\.pbs1\. It said: qdel: Unauthorized Request 7\.pbs1\."):
        backend("pbs").cancel([f"{tmp_path}/0.journal@7.pbs1"])


def test_the_reason_of_a_refused_submission_is_not_hidden_by_what_cannot_be_cancelled(
    bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executable(
        bin / "sbatch", "[ ! -e sent ] || { echo 'sbatch: error: no more jobs' >&2; exit 1; }; touch sent; echo 7"
    )
    executable(bin / "scancel", "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(InputError, match="no more jobs"):
        backend("slurm").submit([job(tmp_path), job(tmp_path)])
    said = "Jobs may still be queued: `scancel 7` failed: scancel: error: Unable to contact slurm controller"
    assert caplog.messages == [said]
