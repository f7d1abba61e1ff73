"""Job scripts: every name is safe in them, sites can extend their template, and they continue a worker correctly.

They are run by bash without a scheduler: Python and the scheduler's commands are replaced by small scripts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.scheduling.backends.base import Array, BackendOptions, Job, Resources
from modtrain.scheduling.backends.batch import BatchBackend
from modtrain.scheduling.backends.journal import Journal
from modtrain.scheduling.backends.pbs import PbsBackend
from modtrain.scheduling.backends.slurm import SlurmBackend
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.restarts import MAX_RESTARTS, restart_pause_s
from tests.support.command import Terminal
from tests.support.executable import executable

NAMES = (
    "plain",
    "a; rm -rf $HOME 'x\"y",
    '$(touch canary) `touch canary` %j %% \\ " # ä漢 ${HOME} !! & | * ~ -x',
    "two\nlines; touch canary\n#SBATCH --array=0-9",
)
PROLOGUE = ["module load 'cuda 12'", 'echo "not set: $NOT_SET_ANYWHERE"']
DIALECTS: dict[str, tuple[type[BatchBackend], dict[str, Any], str]] = {
    "slurm": (SlurmBackend, {}, "SLURM_ARRAY_TASK_ID"),
    "pbspro": (PbsBackend, {"dialect": "pbspro"}, "PBS_ARRAY_INDEX"),
    "torque": (PbsBackend, {"dialect": "torque"}, "PBS_ARRAYID"),
}
STAND_IN = """#!/bin/bash
printf '%s\\0' "${{MODTRAIN_LEAVE_AFTER-}}" "${{WEIRD-}}" "$@" >{calls}/$EPOCHREALTIME
exit "${{EXIT:-0}}"
"""


@dataclass(frozen=True)
class Site:
    """A folder with a Python that records its calls, and a scheduler of a few lines."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python $(touch canary)"

    def command(self, name: str, text: str) -> None:
        """Put a command on the PATH of the scripts."""
        executable(self.path / "bin" / name, text)

    def calls(self) -> list[tuple[str, str, list[str]]]:
        """The calls of Python: its deadline, a variable with a hostile value, and its arguments."""
        texts = [path.read_text() for path in sorted((self.path / "calls").iterdir())]
        return [(after, weird, words) for after, weird, *words in (text[:-1].split("\0") for text in texts)]

    def environment(self, **more: str) -> dict[str, str]:
        """An almost empty environment, as of a job."""
        path = f"{self.path / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.path / "home"), "SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7"} | more

    def run(self, script: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a scheduler does, but in another folder than its own."""
        environment = self.environment(**more)
        return subprocess.run(
            ["bash", str(script)], env=environment, cwd=self.path, capture_output=True, text=True, timeout=60
        )

    def files(self) -> set[str]:
        """Relative paths of all files."""
        return {str(p.relative_to(self.path)) for p in self.path.rglob("*")}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("still here")
    (tmp_path / "bin").mkdir()
    (tmp_path / "calls").mkdir()
    executable(site.python, STAND_IN.format(calls=tmp_path / "calls"))
    site.command("squeue", "echo 2099-01-01T00:00:00")
    site.command("qstat", "exit 1")
    site.command("module", 'echo "module $*"')
    for name in ("sbatch", "qsub"):  # beside them the scripts look for the other commands
        site.command(name, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return site


def backend(site: Site, kind: str = "slurm", **values: Any) -> BatchBackend:
    backend_class, options, _ = DIALECTS[kind]
    return backend_class(BackendOptions(profile=Profile(python=str(site.python), **{**options, **values})))


def job(site: Site, name: str = "plain", *words: str) -> Job:
    command = ("python", "-m", "modtrain", "worker", name, *words)
    environment = {"WEIRD": name, "PYTHONPATH": f"/opt/{name}"}
    return Job(
        name=f"{name}.generator", command=command, log=site.path / name / "jobs" / "0.log", environment=environment
    )


def array(site: Site, name: str, tasks: Sequence[int]) -> Array:
    command, folder = ("python", "-m", "modtrain", "trial", name), site.path / name / "jobs"
    return Array(name=name, command=command, tasks=tasks, max_running=2, log=folder, environment={"WEIRD": name})


def every_script(site: Site, kind: str) -> Iterator[tuple[str, Path, Sequence[int]]]:
    """Jobs, chains and arrays of one or several tasks, with and without the site's own lines, for each name."""
    for (number, name), site_lines, form in product(
        enumerate(NAMES), ([], PROLOGUE), ("job", "chain", "one", "several")
    ):
        folder = Site(site.path / f"{kind}-{number}-{form}-{len(site_lines)}")
        values = {
            "prologue": site_lines,
            "epilogue": site_lines,
            "walltime": None if form == "one" else "01:00:00",
            "chain": 3 if form == "chain" else 1,
        }
        slurm_or_pbs = backend(site, kind, **values, account="a#b" if kind == "slurm" else "ab")
        tasks = {"one": [5], "several": [5, 7]}.get(form, [])
        if tasks:
            scripts = slurm_or_pbs.arrays(array(folder, name, tasks))
        else:
            scripts = slurm_or_pbs.scripts([job(folder, name)])
        yield name, scripts[0], tasks


@pytest.mark.parametrize("kind", DIALECTS)
def test_every_script_passes_shellcheck_and_passes_every_name_on_unchanged(site: Site, kind: str) -> None:
    scripts = list(every_script(site, kind))
    for _, script, _ in scripts:
        assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    paths = [script for _, script, _ in scripts]
    checked = subprocess.run(["shellcheck", "--shell=bash", *paths], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    for name, script, tasks in scripts:
        done = site.run(script, **{DIALECTS[kind][2]: "1"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), script
        words = ["trial", name, "--task", str(tasks[-1])] if tasks else ["worker", name]
        _, weird, arguments = site.calls()[-1]
        assert (arguments, weird) == (["-m", "modtrain", *words], name)
        log = script.parent / f"{tasks[-1] if tasks else 0}.log"
        assert ("module load cuda 12" in log.read_text()) == ("NOT_SET" in script.read_text())
        assert [line.split()[0] for line in log.with_suffix(".journal").read_text().splitlines()][-2:] == [
            "started",
            "ended",
        ]
    assert not [file for file in site.files() if file.endswith("canary")]
    assert (site.path / "home" / "precious").read_text() == "still here"


@pytest.mark.parametrize("kind", DIALECTS)
def test_no_part_of_a_name_becomes_a_directive(site: Site, kind: str) -> None:
    marker = f"{DIALECTS[kind][0].marker} "
    counts: dict[tuple[bool, bool], set[int]] = {}
    for _, script, tasks in every_script(site, kind):
        lines = script.read_text().splitlines()
        first_of_bash = next(number for number, line in enumerate(lines) if not line.startswith("#"))
        form = (bool(tasks), len(tasks) > 1)
        counts.setdefault(form, set()).add(sum(line.startswith(marker) for line in lines[:first_of_bash]))
    assert [len(numbers) for numbers in counts.values()] == [1, 1, 1], counts


def test_a_script_states_its_purpose_its_directives_and_how_to_submit_it(site: Site) -> None:
    (script,) = backend(site, walltime="00:30:00", cpus=2, queue="long", memory_gb=0.5).scripts([job(site)])
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=plain.generator-")
    assert "plain.generator: one worker of a modtrain run" in text
    assert f"# To submit it by hand: cd {script.parent} && sbatch --parsable 0.sh\n" in text
    for expected in (
        "--partition=long",
        "--time=00:30:00",
        "--mem=512M",
        "--cpus-per-task=1",
        "--dependency=singleton",
    ):
        assert f"#SBATCH {expected}\n" in text


def test_a_site_can_leave_out_directives_and_add_others(site: Site) -> None:
    values: dict[str, Any] = {"memory_gb": 4, "walltime": "01:00:00", "directives": ["--exclusive"]}
    (script,) = backend(site, **values, leave_out=["--mem", "--requeue"]).scripts([job(site)])
    directives = [
        line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH ")
    ]
    assert "--exclusive" in directives
    assert not [option for option in directives if option.startswith(("--mem", "--requeue"))]


TEMPLATE = """{% extends "slurm.sh.j2" %}
{% block on_start %}
echo {{ about | sh }} "on this site"
{% endblock %}
"""


def test_a_site_s_template_can_extend_ours(site: Site) -> None:
    own = site.path / "slurm.sh.j2"  # the name of ours
    own.write_text(TEMPLATE)
    (script,) = backend(site, template=str(own)).scripts([job(site, NAMES[1])])
    assert site.run(script).returncode == 0
    assert f"{NAMES[1]}.generator: one worker of a modtrain run. on this site" in (script.parent / "0.log").read_text()


def test_a_site_s_template_can_define_blocks_for_templates_that_extend_it(site: Site) -> None:
    """Blocks nested in one of ours, or replacing such a block."""
    base = "{% block on_start %}echo base{% block greeting %}{% endblock %}{% endblock %}"
    (site.path / "base.sh.j2").write_text("{% extends 'slurm.sh.j2' %}" + base)
    inner = "{% block greeting %}; echo hello {% block name %}world{% endblock %}{% endblock %}"
    own = site.path / "own.sh.j2"
    own.write_text("{% extends 'base.sh.j2' %}" + inner)
    (script,) = backend(site, template=str(own)).scripts([job(site)])
    assert site.run(script).returncode == 0
    assert (script.parent / "0.log").read_text() == "base\nhello world\n"
    own.write_text("{% extends 'base.sh.j2' %}{% block greetings %}{% endblock %}")
    with pytest.raises(InputError, match=r"'greetings'; base.sh.j2 has .*Did you mean 'greeting'"):
        backend(site, template=str(own)).scripts([job(site)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ partition }}", "'partition' is undefined"),
        ("{% if %}", "line 1"),
        ("{{ 1 + about }}", "unsupported operand"),
        ("{% include 'no such' %}", "no such"),
        ('{% extends "slurm.sh.j2" %}{% block on_strat %}{% endblock %}', "Did you mean 'on_start'"),
        (None, "No such file"),
    ],
)
def test_an_error_in_a_template_is_one_sentence(site: Site, text: str | None, message: str) -> None:
    own = site.path / "own.sh.j2"
    if text is not None:
        own.write_text(f"#!/bin/bash\n{text}" if text != "{% if %}" else text)
    with pytest.raises(InputError, match=message) as error:
        backend(site, template=str(own)).scripts([job(site)])
    assert "own.sh.j2" in str(error.value)
    assert "\n" not in str(error.value)


SITE = """
queue: long
directives: [--exclusive]
leave_out: [--requeue]
template: own.sh.j2
prologue: [module load one]
"""


def test_the_command_line_overrides_the_profile_of_a_site(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_, profile = Terminal(capsys, monkeypatch), tmp_path / "site.yaml"
    profile.write_text(SITE)
    words = ("launch", "--recipe", tiny_recipe, "--root", tmp_path, "--name", "run", "--nodes", 1, "--backend", "slurm")
    words = (*words, "--profile", profile, "--queue", "short", "--prologue", "module load two", "--dry-run")
    (tmp_path / "own.sh.j2").write_text("{% extends 'slurm.sh.j2' %}{% block on_start %}{{ nodes }}{% endblock %}")
    result = type_(*words)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "own.sh.j2: 'nodes' is undefined. It may use about, submit, path," in result.err
    (tmp_path / "own.sh.j2").write_text(TEMPLATE)
    result = type_(*words)
    assert result.code == 0, result.err
    script = (tmp_path / "run" / "jobs" / "0.sh").read_text()
    assert script in result.out
    for expected in ("#SBATCH --partition=short\n", "#SBATCH --exclusive\n", "\nmodule load one\nmodule load two\n"):
        assert expected in script
    assert "--requeue" not in script
    assert "on this site" in script


def set_answers(site: Site, answers: Sequence[str]) -> None:
    """Make squeue give these answers, one per call, and the last one again and again; `!` is a failure."""
    (site.path / "answers").write_text("\n".join(answers) + "\n")
    site.command(
        "squeue",
        f'cd "{site.path}"; answer="$(head -n 1 answers)"; [ "$(wc -l <answers)" -eq 1 ] || sed -i 1d answers\n'
        'echo "$*" >>squeue.calls; [ "$answer" != "!" ] || { echo "Socket timed out" >&2; exit 1; }; echo "$answer"',
    )
    site.command("scontrol", f'echo "$*" >>"{site.path}/scontrol.calls"')


def requeued(site: Site) -> list[str]:
    calls = site.path / "scontrol.calls"
    return calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize(
    ("state", "again"),
    [
        ("RUNNING None", True),
        ("COMPLETING TimeLimit", True),
        ("COMPLETING None\n2026-11-24T04:37:37", True),  # the time of its preemption
        ("COMPLETING None\nN/A", False),
        ("PENDING None\nN/A", False),
    ],
)
def test_the_job_of_a_preempted_worker_is_requeued_unless_it_was_cancelled(site: Site, state: str, again: bool) -> None:
    set_answers(site, ["N/A", *state.splitlines()])
    (script,) = backend(site).scripts([job(site)])
    assert site.run(script, EXIT="75").returncode == 75
    assert requeued(site) == (["requeue 7"] if again else [])


def test_the_job_of_a_worker_that_finished_stopped_or_failed_is_not_requeued(site: Site) -> None:
    set_answers(site, ["N/A", "RUNNING None"])
    (script,) = backend(site).scripts([job(site)])
    assert [site.run(script, EXIT=code).returncode for code in ("0", "3", "5")] == [0, 3, 5]
    assert requeued(site) == []


def test_queries_of_a_busy_controller_are_repeated(site: Site) -> None:
    set_answers(site, ["!", "2099-01-01T00:00:00", "!", "RUNNING None"])
    (script,) = backend(site).scripts([job(site)])
    assert site.run(script, EXIT="75").returncode == 75
    assert requeued(site) == ["requeue 7"]
    assert float(site.calls()[-1][0]) > 1e6


def test_a_task_of_an_array_queries_and_requeues_only_itself(site: Site) -> None:
    """The last task of an array has the array's id as its own."""
    set_answers(site, ["N/A", "RUNNING None"])
    (script,) = backend(site).arrays(array(site, "sweep", [4, 5, 6]))
    assert site.run(script, SLURM_ARRAY_TASK_ID="2", EXIT="75").returncode == 75
    assert requeued(site) == ["requeue 7_2"]
    assert all("--jobs=7_2 " in call for call in (site.path / "squeue.calls").read_text().splitlines())


def test_the_worker_gets_the_time_that_is_left(site: Site) -> None:
    in_an_hour = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3600))
    set_answers(site, [in_an_hour])
    (script,) = backend(site, publish_before_s=600).scripts([job(site)])
    assert site.run(script, MODTRAIN_LEAVE_AFTER="1").returncode == 0
    assert 2900 < float(site.calls()[-1][0]) <= 3000
    set_answers(site, ["UNLIMITED"])
    site.run(script, MODTRAIN_LEAVE_AFTER="1")
    assert site.calls()[-1][0] == ""


@pytest.mark.parametrize(
    ("qstat", "seconds"),
    [
        ("    Resource_List.select = 1:ncpus=1\n    Resource_List.walltime = 26:10:09\n", 94209),  # PBS Pro
        ("\tResource_List.walltime = 00:10:00\n\tResource_List.nodect = 1\n", 600),  # Torque's commands on Slurm
        ("    Resource_List.walltime = 119304647:05:00\n", None),  # ... without a limit
        ("    resources_used.walltime = 00:10:00\n", None),
    ],
)
@pytest.mark.parametrize("kind", ["pbspro", "torque"])
def test_a_pbs_job_reads_a_time_limit_that_only_its_queue_sets(
    site: Site, kind: str, qstat: str, seconds: int | None
) -> None:
    (site.path / "qstat").write_text(f"Job Id: 7.server\n{qstat}")
    site.command("qstat", f'[ "$*" = "-f 7.server" ] && cat {site.path}/qstat')
    (script,) = backend(site, kind, publish_before_s=100).scripts([job(site)])
    assert site.run(script, PBS_JOBID="7.server").returncode == 0
    after = site.calls()[-1][0]
    assert (after == "") if seconds is None else (seconds - 160 < float(after) <= seconds - 100)


@pytest.mark.parametrize(("ends", "code"), [("kill -9 $$", 137), ("exit 6", 6)])
def test_a_worker_that_was_killed_or_lost_its_storage_is_restarted_within_its_job_and_then_given_up(
    site: Site, ends: str, code: int
) -> None:
    executable(site.python, f"echo alive\n{ends}")
    site.command("sleep", f'echo "$1" >>"{site.path}/pauses"')
    (script,) = backend(site).scripts([job(site)])
    assert site.run(script).returncode == code
    pauses = [restart_pause_s(failures) for failures in range(1, MAX_RESTARTS + 1)]
    assert [float(line) for line in (site.path / "pauses").read_text().split()] == pauses
    assert (script.parent / "0.log").read_text().count("alive\n") == MAX_RESTARTS + 1
    assert f" {code} " in (script.parent / "0.journal").read_text()


def test_a_worker_whose_storage_works_again_goes_on_within_its_job_and_a_long_outage_leaves_for_the_next_one(
    site: Site,
) -> None:
    fails_once = f"echo alive\nmkdir {site.path}/failed || exit 0\nexit 6"
    executable(site.python, fails_once)
    (script,) = backend(site).scripts([job(site)])
    assert site.run(script).returncode == 0
    log, journal = script.parent / "0.log", Journal(f"{script.parent / '0.journal'}@7")
    assert "The worker was killed or lost its storage (exit code 6); restarting it.\n" in log.read_text()
    assert (log.read_text().count("alive\n"), journal.exit_code) == (2, 0)
    set_answers(site, [time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1)), "RUNNING None"])
    executable(site.python, "echo again\nexit 6")
    (script,) = backend(site, publish_before_s=60).scripts([job(site)])
    assert site.run(script).returncode == 75, "no time is left for another try"
    assert requeued(site) == ["requeue 7"]
    assert log.read_text().count("again\n") == 1


def test_a_worker_that_is_killed_near_the_time_limit_continues_in_the_next_job(site: Site) -> None:
    over = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3))
    set_answers(site, [over, "RUNNING None"])
    site.python.write_text("#!/bin/bash\necho alive\n/bin/sleep 3\nkill -9 $$\n")
    (script,) = backend(site, publish_before_s=1).scripts([job(site)])
    assert "-lt 60" in script.read_text()
    script.write_text(script.read_text().replace("-lt 60", "-lt 0"))  # as if it had run for more than a minute
    assert site.run(script).returncode == 75
    assert requeued(site) == ["requeue 7"]
    assert (script.parent / "0.log").read_text().count("alive\n") == 1


def test_torn_lines_of_a_journal_are_skipped(site: Site) -> None:
    journal = site.path / "0.journal"
    journal.write_text("started 7 n1 1\nended 7 75 2\nended 7 7x 3\nended 7 \n")
    read = Journal(f"{journal}@7")
    assert (read.exit_code, read.closed) == (75, True)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.parametrize("when", ["prologue", "worker"])
def test_a_signal_reaches_the_worker_at_any_time_and_the_job_is_requeued(
    site: Site, number: signal.Signals, when: str
) -> None:
    set_answers(site, ["N/A", "RUNNING None"])
    site.python.write_text(
        "#!/bin/bash\ntrap 'echo publishing; exit 75' USR2\necho training\nwhile :; do sleep 0.05; done\n"
    )
    slow = ["echo preparing", "sleep 0.5"] if when == "prologue" else []
    (script,) = backend(site, prologue=slow).scripts([job(site)])
    log = script.parent / "0.log"
    with subprocess.Popen(["bash", str(script)], env=site.environment()) as running:
        while not (log.exists() and {"preparing", "training"} & set(log.read_text().split())):
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(timeout=30) == 75
    assert ("publishing" in log.read_text()) == (when == "worker")
    assert requeued(site) == ["requeue 7"]


def test_a_job_that_overruns_its_time_limit_is_requeued_only_once(site: Site) -> None:
    set_answers(site, ["N/A", "COMPLETING TimeLimit"])
    site.python.write_text("#!/bin/bash\nkill -TERM $PPID\nsleep 0.1\nkill -9 $$\n")
    (script,) = backend(site).scripts([job(site)])
    assert [site.run(script).returncode for _ in range(2)] == [75, 75]
    assert requeued(site) == ["requeue 7"]
    assert "again at its time limit before the worker could leave" in (script.parent / "0.log").read_text()


def journal_of(script: Path) -> list[str]:
    """The lines of a job's journal without their times."""
    lines = [line.split(" ", 4) for line in (script.parent / "0.journal").read_text().splitlines()]
    return [" ".join([kind, *fields[1:2], *fields[3:]]) for kind, *fields in lines]


NOT_ALLOWED = "qsub: Bad UID for job execution"
AWAY = "Connection refused\nqsub: cannot connect to server pbs1 (errno=15010)"


@pytest.mark.parametrize(
    ("failures", "words", "before_s", "end"),
    [
        (3, AWAY, 120, "continued 8.pbs1"),
        (99, AWAY, 1, "refused 0 Connection refused qsub: cannot connect to server pbs1 (errno=15010)"),
        (99, NOT_ALLOWED, 1, f"refused 0 {NOT_ALLOWED}"),
        (99, "\x1b[31mno\x07", 1, "refused 0 [31mno"),
    ],
)
def test_a_refused_successor_is_tried_again_while_there_is_time_and_then_recorded_with_the_words_of_qsub(
    site: Site, failures: int, words: str, before_s: float, end: str
) -> None:
    site.command("sleep", "")
    (site.path / "words").write_text(words)
    count = f'echo >>{site.path}/tries; [ "$(wc -l <{site.path}/tries)" -gt {failures} ] && echo 8.pbs1 && exit'
    site.command("qsub", f"{count}; cat {site.path}/words >&2; exit 162")
    (script,) = backend(site, "pbspro", publish_before_s=before_s).scripts([job(site)])
    assert site.run(script, PBS_JOBID="7.pbs1", EXIT="75").returncode == 75
    assert [line.strip() for line in journal_of(script)][1:] == ["ended 75", end]
    journal = Journal(f"{script.parent}/0.journal@7.pbs1")
    is_refused = end.startswith("refused")
    assert journal.refusal.strip() == (end.removeprefix("refused 0 ") if is_refused else "")
    assert ("No job continues this one" in (script.parent / "0.log").read_text()) == is_refused
    assert journal.state({}).reason.startswith("no job continues it: " if is_refused else "")


def test_a_sentence_of_a_wrapper_around_the_id_of_the_next_job_is_not_taken_for_it(site: Site) -> None:
    for answer, end in (
        ("echo 8.pbs1; echo 3 credits used", "continued 8.pbs1"),
        ("echo Job 8.pbs1 sent", "refused 0"),
    ):
        site.command("qsub", answer)
        (script,) = backend(site, "pbspro").scripts([job(site)])
        assert site.run(script, PBS_JOBID="7.pbs1", EXIT="75").returncode == 75
        assert journal_of(script)[-1].startswith(end)


def test_a_job_that_slurm_does_not_requeue_records_the_words(site: Site) -> None:
    set_answers(site, ["N/A", "RUNNING None"])
    site.command("sleep", "")
    site.command("scontrol", "echo 'Access/permission denied' >&2; exit 1")
    (script,) = backend(site).scripts([job(site)])
    assert site.run(script, EXIT="75").returncode == 75
    assert journal_of(script)[-1].strip() == "refused 0 Access/permission denied"


@pytest.mark.parametrize("kind", ["pbspro", "slurm"])
def test_a_job_calls_the_commands_of_the_scheduler_that_submitted_it(site: Site, kind: str, tmp_path: Path) -> None:
    other = tmp_path / "other product"
    for name in ("qsub", "qstat", "squeue", "scontrol"):
        executable(other / name, f"touch {site.path}/mistaken; exit 1")
    set_answers(site, ["N/A", "RUNNING None"])
    site.command("qsub", "echo 8.pbs1")
    (script,) = backend(site, kind).scripts([job(site)])
    path = f"{other}:{site.path / 'bin'}:{os.environ['PATH']}"
    assert site.run(script, PBS_JOBID="7.pbs1", EXIT="75", PATH=path).returncode == 75
    assert not (site.path / "mistaken").exists()
    assert requeued(site) == ["requeue 7"] if kind == "slurm" else journal_of(script)[-1] == "continued 8.pbs1"


@pytest.mark.parametrize("code", ["4", "75"])
def test_a_process_that_a_lost_node_left_behind_records_no_end_of_the_job_that_runs_again(
    site: Site, code: str
) -> None:
    site.command("qsub", "echo 8.pbs1")
    again = f'echo "started 7.pbs1 n2 9999999999" >>{site.path}/plain/jobs/0.journal; exit {code}'
    executable(site.python, again)
    (script,) = backend(site, "pbspro").scripts([job(site)])
    assert site.run(script, PBS_JOBID="7.pbs1").returncode == int(code)
    assert [line.split()[0] for line in journal_of(script)] == ["started", "started"]
    assert not Journal(f"{script.parent}/0.journal@7.pbs1").closed


CHAINS = {
    "the first": ([], True),
    "after one that was preempted": (["continued 6 7 0", "started 6 n1 1", "ended 6 75 2"], True),
    "after one that finished": (["continued 6 7 0", "started 6 n1 1", "ended 6 0 2"], False),
    "after one that failed": (["started 6 n1 1", "ended 6 5 2", "continued 6 7 0"], False),
    "after one that had nothing to do": (
        ["continued 5 6 0", "continued 6 7 0", "started 5 n1 1", "ended 5 0 2"],
        False,
    ),
    "after one that was cancelled in the queue": (["continued 6 7 0"], True),
    "after one that was lost": (["continued 6 7 0", "started 6 n1 1"], True),
    "of a launch after one that failed": (
        ["continued 4 5 0", "started 4 n1 1", "ended 4 5 2", "continued 7 8 0"],
        True,
    ),
}


@pytest.mark.parametrize("case", CHAINS)
def test_a_job_of_a_chain_starts_its_worker_unless_there_is_nothing_to_continue(site: Site, case: str) -> None:
    lines, begins = CHAINS[case]
    (script,) = backend(site, chain=3).scripts([job(site)])
    (script.parent / "0.journal").write_text("".join(f"{line}\n" for line in lines))
    assert site.run(script).returncode == 0
    assert bool(site.calls()) is begins
    assert ("nothing to continue" in (script.parent / "0.log").read_text()) is not begins


def test_the_resources_of_a_job_become_directives(site: Site) -> None:
    one = Job(name="x", command=("python",), log=site.path / "x" / "0.log", resources=Resources(cpus=3))
    (script,) = backend(site, gpus=2, constraint="a100", mail="me@here").scripts([one])
    for expected in ("--cpus-per-task=3", "--gres=gpu:2", "--constraint=a100", "--mail-type=END,FAIL"):
        assert f"#SBATCH {expected}\n" in script.read_text()


def test_every_job_option_becomes_a_directive_of_slurm(site: Site) -> None:
    values = {
        "queue": "long",
        "account": "physics",
        "qos": "high",
        "reservation": "R12",
        "walltime": "1-02:00:00",
        "memory_gb": 1.5,
        "gpus": 2,
        "constraint": "a100",
        "exclude": "n[1-3]",
        "mail": "me@here",
        "mail_on": "ALL",
        "dependency": "afterok:12",
        "directives": ["--exclusive"],
    }
    (script,) = backend(site, **values).scripts([job(site)])
    directives = {
        line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH ")
    }
    assert directives >= {
        "--partition=long",
        "--account=physics",
        "--qos=high",
        "--reservation=R12",
        "--time=1-02:00:00",
        "--mem=1536M",
        "--gres=gpu:2",
        "--constraint=a100",
        "--exclude=n[1-3]",
        "--mail-user=me@here",
        "--mail-type=ALL",
        "--dependency=singleton,afterok:12",
        "--exclusive",
    }
