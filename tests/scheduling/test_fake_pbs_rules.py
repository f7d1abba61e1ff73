"""The fake PBS Pro is as strict as the real one about what `qsub` is given, on its command line and in a script."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_pbs import Cluster, FakePbs, fake_pbs

REFUSED = [
    ("-N", "two words", "illegal -N value", 2),
    ("-N", "a/b", "illegal -N value", 2),
    ("-N", "n" * 231, "Job name is too long", 2),
    ("-q", "nowhere", "Unknown queue", 170),
    ("-j", "both", "illegal -j value", 2),
    ("-k", "on", "illegal -k value", 2),
    ("-m", "x", "illegal -m value", 2),
    ("-m", "aj", "mail option 'j' can not be used without array job", 1),
    ("-M", "me@here,", "illegal -M value", 2),
    ("-r", "yes", "illegal -r value", 2),
    ("-p", "1024", "illegal -p value", 2),
    ("-P", "a:b", "illegal -P value", 2),
    ("-o", "gr\u00fcn.log", "illegal -o value", 2),
    ("-S", "bash", "illegal -S value", 2),
    ("-J", "1-1", "illegal -J value", 2),
    ("-J", "3", "illegal -J value", 2),
    ("-J", "0-3:0", "illegal -J value", 2),
    ("-J", "0-50", "Array job exceeds server or queue size limit", 3),
    ("-J", "0-3%0", "Illegal attribute or resource value", 166),
    ("-t", "0-3", "invalid option -- 't'\nusage: qsub", 2),
    ("-v", "A='x", "cannot send environment with the job", 1),
    ("-v", 'A="it\'s"', "cannot send environment with the job", 1),
    ("-v", "NOT_SET_ANYWHERE", "cannot send environment with the job", 1),
    ("-W", "umask=8", "illegal -W value", 2),
    ("-W", "depend=afterok", "illegal -W value", 2),
    ("-W", "depend=later:100", "illegal -W value", 2),
    ("-W", "depend=afterok:100[3]", "cannot have dependancy on subjob or range", 2),
    ("-W", "colour=red", "Undefined attribute", 154),
    ("-W", "block=true", "does not simulate", 99),
    ("-l", "walltime=24h", "Illegal attribute or resource value Resource_List.walltime", 166),
    ("-l", "select=1:ncpus=two", "Illegal attribute or resource value Resource_List.select", 166),
    ("-l", "select=1:mem=16GiB", "Illegal attribute or resource value Resource_List.select", 166),
    ("-l", "select=0:ncpus=1", "Illegal attribute or resource value Resource_List.select", 166),
    ("-l", "select=1:ppn=2", "Unknown resource: ppn", 187),
    ("-l", "select=1:walltime=1", 'Resource invalid in "select" specification: walltime', 4),
    ("-l", "select=1:ncpus=1:ncpus=2", "duplicated resource within a section of a select specification", 12),
    ("-l", "select=1:ncpus=1,ncpus=2", '"-lresource=" cannot be used with "select" or "place"', 5),
    ("-l", "select=1,nodes=1:ppn=2", "Cannot be used with select or place", 6),
    ("-l", "place=scatter", 'Cannot have "place" without "select"', 7),
    ("-l", "select=2,place=everywhere", "Resource_List.place", 166),
    ("-l", "gpus=1", "Unknown resource Resource_List.gpus", 187),
    ("-l", "mem=1gb,", "illegal -l value\nusage: qsub", 2),
]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    """A fake that refuses everything, so that many tests can share it."""
    with fake_pbs(tmp_path_factory.mktemp("idle") / "pbs", Cluster(max_array_size=50)) as fake:
        yield fake
        assert fake.calls("qsub")
        assert fake.run("qstat", "-x").stdout == "", "what was refused left a job behind"


@pytest.mark.parametrize(("option", "value", "message", "code"), REFUSED, ids=lambda value: str(value)[:30])
def test_a_bad_option_is_refused_as_the_real_qsub_does(
    idle: FakePbs, option: str, value: str, message: str, code: int
) -> None:
    answer = idle.run("qsub", option, value, text="true\n")
    assert message in answer.stderr
    assert (answer.stdout, answer.returncode) == ("", code)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("#PBS -t 0-3", 1),
        ("#PBS -r maybe", 1),
        ("#PBS -J 0-3 -r n", 1),
        ("#PBS -N a b", 1),
        ("#PBS -N 'a b'", 2),
        ("#PBS -l mem=lots", 166),
    ],
)
def test_a_bad_directive_is_refused(idle: FakePbs, line: str, code: int) -> None:
    answer = idle.run("qsub", text=f"#!/bin/bash\n{line}\ntrue\n")
    assert (answer.stdout, answer.returncode) == ("", code)
    assert ("qsub: directive error:" in answer.stderr) == (code == 1)


@pytest.fixture
def pbs(tmp_path: Path) -> Iterator[FakePbs]:
    with fake_pbs(tmp_path / "fake pbs") as fake:
        yield fake


def test_what_the_reference_guide_allows_is_accepted(pbs: FakePbs) -> None:
    allowed = shlex.split("-A a -P p -q workq -m abe -M me,you@host -r n -p -5 -k oed -R oe -c n -S /bin/sh -z -V")
    resources = ["-l", "select=1:ncpus=1:mem=512mb+1:ncpus=2:ngpus=1,place=scatter:excl,walltime=90"]
    answer = pbs.run("qsub", *allowed, *resources, "-W", "group_list=staff,umask=22", "-N", "a.b+c-d_1", text="true")
    assert (answer.stdout, answer.stderr, answer.returncode) == ("", "", 0)
    known = pbs.shown("100")
    assert known["Resource_List.select"] == "1:ncpus=1:mem=512mb+1:ncpus=2:ngpus=1"
    assert known["Resource_List.walltime"] == "00:01:30"
    assert (known["Resource_List.ncpus"], known["Resource_List.ngpus"], known["Rerunable"]) == ("3", "1", "False")


def test_the_old_form_of_nodes_is_translated(pbs: FakePbs) -> None:
    known = pbs.shown(pbs.submit('cat "$PBS_NODEFILE"', "-l", "nodes=2:ppn=2"))
    assert known["Resource_List.select"] == "2:ncpus=2:mpiprocs=2"
    pbs.wait("100")
    assert (pbs.home.parent / "STDIN.o100").read_text() == "n1\nn1\nn2\nn2\n"


def test_the_command_line_wins_over_directives_which_end_at_the_first_command(pbs: FakePbs) -> None:
    script = "#!/bin/bash\n# PBS -N no\n#PBS -N script\n#PBS -l walltime=1:00:00 -j oe\n\ntrue\n#PBS -N late -j n\n"
    known = pbs.shown(pbs.submit(script, "-l", "walltime=60"))
    assert (known["Job_Name"], known["Join_Path"], known["Resource_List.walltime"]) == ("script", "oe", "00:01:00")
    assert pbs.shown(pbs.submit(script, "-N", "mine"))["Job_Name"] == "mine"
