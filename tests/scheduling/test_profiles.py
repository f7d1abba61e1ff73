"""The profiles in `cluster/` work unchanged, and so do the commands and examples about clusters and sweeps."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from modtrain.scheduling.profile import Profile, options, read_profile
from modtrain.storage.run import Run
from tests.support.command import Terminal, ended, start
from tests.support.markdown import ROOT, blocks, commands, name_of

CLUSTERS, SWEEPS = ROOT / "cluster" / "README.md", ROOT / "modtrain" / "sweeps" / "README.md"
PROFILES = sorted((ROOT / "cluster").glob("*.yaml"))
by_name = pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
EXPECTED = {
    "slurm": {"#SBATCH --time=04:00:00", "#SBATCH --cpus-per-task=2", "#SBATCH --mem=4096M"},
    "pbspro": {"#PBS -l walltime=04:00:00", "#PBS -l select=1:ncpus=2:mem=4096mb"},
    "torque": {"#PBS -l walltime=06:00:00", "#PBS -l nodes=1:ppn=2"},
}
"""Directives of the options that are switched on in each profile."""
SITE_LINES = ("\nsource ~/venv/bin/activate\n", "  /shared/venv/bin/python\n", '\necho "left on $(hostname)"\n')
"""Lines of a script for the options `prologue`, `python` and `epilogue` in the comments."""


def switched_on(path: Path, to: Path) -> Path:
    """The profile with all options switched on."""
    to.write_text(re.sub(r"^# (?=\w+:|  - )", "", path.read_text(), flags=re.MULTILINE))
    return to


def test_every_job_option_is_in_a_profile() -> None:
    documented = {name for path in PROFILES for name in re.findall(r"^(?:# )?(\w+):", path.read_text(), re.MULTILINE)}
    assert documented >= set(Profile.model_fields)
    assert {path.stem for path in PROFILES} == set(EXPECTED)


@by_name
def test_an_option_that_is_switched_on_becomes_the_directive_in_its_comment(
    path: Path, type_: Terminal, tiny_recipe: Path, tmp_path: Path
) -> None:
    site = switched_on(path, tmp_path / "site.yaml")
    off = set(re.findall(r"^# (\w+):", path.read_text(), re.MULTILINE))
    assert len(off) > 10
    assert read_profile(site).model_fields_set >= off | read_profile(path).model_fields_set
    site.write_text(re.sub(r"^(template|leave_out):.*\n", "", site.read_text(), flags=re.MULTILINE))
    what = ("--recipe", tiny_recipe, "--place", "generator,discriminator", "--root", tmp_path, "--name", "run")
    result = type_("launch", *what, "--profile", site, "--dry-run")
    assert result.code == 0, result.err
    script = (tmp_path / "run" / "jobs" / "0.sh").read_text()
    directives = re.findall(r" # (--[\w-]+|-[A-Za-z](?: \w+=)?)", site.read_text())
    assert len(directives) > 7
    for directive in directives:
        assert f"\n{'#SBATCH' if path.stem == 'slurm' else '#PBS'} {directive}" in script
    assert [part for part in SITE_LINES if part not in script] == []


@by_name
def test_an_unchanged_profile_launches_a_run_to_its_end(
    path: Path, tiny_recipe: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real Slurm, by Torque's commands on it, and on a fake PBS Pro."""
    if path.stem == "pbspro":
        monkeypatch.setenv("PATH", request.getfixturevalue("pbs_pro").env["PATH"])
    else:
        request.getfixturevalue("slurm")
    (command,) = re.findall(rf"^#     modtrain (launch --profile cluster/{path.stem}.yaml .*)$", path.read_text(), re.M)
    words = [{"~/runs": str(tmp_path), f"cluster/{path.stem}.yaml": str(path)}.get(w, w) for w in shlex.split(command)]
    what = ("--recipe", tiny_recipe, "--epochs", "1", "--nodes", "1")
    result = ended(start(*words, *what, "--poll-s", "0.5", "--wait"))
    assert result.code == 0, result.out + result.err
    run = Run.open(tmp_path / "apples")
    assert run.is_finished(run.modules)
    assert set((run.path / "jobs" / "0.sh").read_text().splitlines()) >= EXPECTED[path.stem]


def test_the_documentation_names_every_job_option() -> None:
    missing = [option for option, _ in options() if not re.search(rf"`{option}[` =,]", CLUSTERS.read_text())]
    assert missing == []


@pytest.mark.parametrize("page", [CLUSTERS, SWEEPS], ids=name_of)
def test_the_launches_and_sweeps_of_the_documentation_would_be_accepted(
    page: Path, type_: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    planned = [words for words in commands(page) if words[0] in ("launch", "sweep")]
    assert len(planned) >= 3
    for words in planned:
        moved = [word.replace("~/runs", str(tmp_path)) for word in words]
        result = type_(*moved, *([] if "--dry-run" in words else ["--dry-run"]))
        assert result.code == 0, f"{words}: {result.err}"


def test_the_template_and_the_space_of_the_documentation_are_read(
    type_: Terminal, tiny_recipe: Path, tmp_path: Path
) -> None:
    (template,), (space,) = blocks(CLUSTERS, "jinja"), blocks(SWEEPS, "yaml")
    site, varied = tmp_path / "site.sh.j2", tmp_path / "space.yaml"
    site.write_text(template)
    varied.write_text(space)
    where = ("--backend", "slurm", "--root", tmp_path, "--dry-run")
    assert type_("launch", "--recipe", tiny_recipe, "--template", site, "--name", "run", *where).code == 0
    script = tmp_path / "run" / "jobs" / "0.sh"
    assert 'echo "on $(hostname), $(nproc) cores"' in script.read_text()
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "36 by grid" in type_("sweep", "--space", varied, *where).out
