"""A module that no later stage trains is finished: its worker exits while the run goes on, and is not started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from modtrain.cli.status import exit_code_of
from modtrain.errors import PeerTimeout
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.status import Status, build_status
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_record import active_modules
from modtrain.scheduling.launcher import Launch
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.history import History
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.storage.run_state import RunState
from modtrain.training.evaluation import evaluate
from tests.support.launches import to_the_end
from tests.support.runs import finish, make_run, start_worker
from tests.support.staged import staged_recipe

APART = [["recogniser"], ["generator"], ["discriminator"]]


def status_of(run: Run) -> Status:
    return build_status(read_snapshot(run))


def states(status: Status) -> dict[str, RunState]:
    return {name: module["state"] for name, module in status["modules"].items()}


def alarms(run: Run, status: Status) -> list[str]:
    history = History(run)
    history.refresh()
    return [alarm.says for alarm in find_alarms(status, history)]


def test_whatever_the_bound_a_stage_is_entered_when_every_module_has_completed_the_one_before(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = staged_recipe(tmp_path / "staged.py", tiny_recipe)
    run = make_run(tmp_path / "run", recipe, APART, params={"batches": 1}, epochs=3, peer_timeout_s=0.2)
    assert run.spec.max_staleness is None
    with pytest.raises(PeerTimeout, match="for discriminator to publish epoch 0; it has published nothing"):
        finish(run, "generator")
    with pytest.raises(PeerTimeout, match="for recogniser to publish epoch 0; it has published nothing"):
        finish(run, "discriminator")  # which does not read it
    finish(run, "recogniser")
    finish(run, "discriminator")
    assert [(each.epoch, each.step) for each in run.store("discriminator").history()][-2:] == [(2, 3), (3, 4)]


def test_a_stage_may_read_more_versions_of_a_peer(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = staged_recipe(tmp_path / "staged.py", tiny_recipe)
    text = recipe.read_text().replace(
        'reads=("discriminator"', 'reads=(tiny.Reads("discriminator", last=lambda p: p.opponents)'
    )
    more = "params=lambda params: dataclasses.replace(params, opponents=2), trains=("
    recipe.write_text(text.replace('trains=("generator"', f'{more}"generator"'))
    run = make_run(tmp_path / "run", recipe, APART, params={"batches": 1}, epochs=3, peer_timeout_s=0.2)
    with pytest.raises(PeerTimeout, match="for discriminator"):
        finish(run, "generator")
    for module in ("recogniser", "discriminator", "generator"):
        finish(run, module)
    used = [each.peers["discriminator"]["versions"] for each in run.store("generator").history() if each.step > 2]
    assert used == [[2, 1], [2, 1]]


def test_the_worker_of_a_finished_module_exits_and_is_not_started_again(tmp_path: Path, tiny_recipe: Path) -> None:
    values = {"batches": 2, "pause_s": 0.15}
    recipe = staged_recipe(tmp_path / "staged.py", tiny_recipe)
    run = make_run(tmp_path / "run", recipe, APART, params=values, epochs=12, max_staleness=0)
    recogniser, *others = [start_worker(run, module) for (module,) in APART]
    output, _ = recogniser.communicate(timeout=60)
    assert recogniser.returncode == 0, output

    during = status_of(run)
    assert during["state"] in ("running", "starting")
    assert (during["modules"]["recogniser"]["epoch"], during["modules"]["recogniser"]["epochs"]) == (4, 4)
    assert states(during)["recogniser"] == "finished"
    assert not {"finished", "failed", "lost"} & {states(during)[name] for name in ("generator", "discriminator")}
    assert during["epoch"] <= 12
    assert alarms(run, during) == []
    assert active_modules(run) == ["generator", "discriminator"]
    assert run.is_finished(["recogniser"])
    assert not run.is_finished(run.modules)

    run.request_stop("lunch")
    for process in others:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 3, output
    stopped = status_of(run)
    assert (stopped["state"], states(stopped)["recogniser"], exit_code_of(stopped)) == ("stopped", "finished", 3)

    run.clear_stop()
    versions = run.store("recogniser").history()
    launch = Launch(run, "local", BackendOptions(profile=Profile(cpus=1)))
    assert [member.name for member in launch.start()] == ["generator", "discriminator"]
    to_the_end(launch)
    assert launch.outcome() == 0
    assert run.store("recogniser").history() == versions, "it is neither trained nor published again"
    assert [(each.epoch, each.final) for each in versions][-1] == (4, True)
    assert run.store("recogniser").versions()[-1] == versions[-1].version, "the final version is kept"
    lineage = [each.peers["recogniser"] for each in run.store("generator").history() if each.epoch > 4]
    assert {tuple(used["versions"]) for used in lineage} == {(versions[-1].version,)}

    ended = status_of(run)
    assert (ended["state"], ended["epoch"], ended["progress"], exit_code_of(ended)) == ("finished", 12, 1.0, 0)
    assert alarms(run, ended) == []
    assert set(evaluate(run)["epochs"].values()) == {12}
    assert [row["step"] for row in run.history() if row["module"] == "evaluation"] == [28]

    longer = plan_run(find_target(Config(name="run", root=str(tmp_path), epochs=15))).write()
    assert [stage.epochs for stage in longer.spec.stages] == [4, 11]
    assert longer.is_finished(["recogniser"])
    again = states(status_of(longer))
    assert again == {"recogniser": "finished", "generator": "stopped", "discriminator": "stopped"}
