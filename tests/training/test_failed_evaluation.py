"""A failed evaluation is one in every view and in the exit code, until one succeeds; the training stays finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modtrain.errors import ModtrainError
from modtrain.monitoring.catalog import Catalog
from modtrain.scheduling.standalone_worker import train
from modtrain.storage.run import Run
from modtrain.training.evaluation import NothingToEvaluate, evaluate
from tests.support.command import Terminal
from tests.support.runs import finish, make_run

FAILING = """from pathlib import Path
    from modtrain.errors import InputError
    if (Path(__file__).parent / "broken").exists():
        return {"mean": 1.0}
    if (Path(__file__).parent / "untested").exists():
        raise InputError("There are no test points.")
    """
SAYS = "`evaluate` (mine.py, line 58) returned a dict; it must return Evaluation(metrics={...}, grid=...)."


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    """A finished run whose evaluation fails while there is a file `broken` beside its recipe."""
    recipe = tmp_path / "mine.py"
    recipe.write_text(tiny_recipe.read_text().replace("return Evaluation(", FAILING + "return Evaluation("))
    run = make_run(tmp_path / "runs" / "run", recipe, [["generator", "discriminator"]], epochs=1, params={"batches": 1})
    finish(run)
    (tmp_path / "broken").touch()
    return run


def test_a_failed_evaluation_is_said_until_one_succeeds(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain = Terminal(capsys, monkeypatch)
    launched = modtrain("launch", run.path, "--backend", "local")
    assert (launched.code, launched.err) == (1, f"modtrain: {SAYS}\n")
    assert ", but the evaluation failed." in launched.out
    status = json.loads(modtrain("status", run.path, "--json").out)
    assert (status["state"], status["evaluation_failure"]) == ("finished", {"says": SAYS, "exit_code": 1})
    alarm = f"The evaluation failed: {SAYS}"
    assert [each["says"] for each in status["alarms"]] == [alarm]
    assert modtrain("status", run.path, "--watch").code == 1
    catalog = Catalog(run.path.parent)
    catalog.refresh()
    assert [each["says"] for each in catalog.rows()["runs"][0]["alarms"]] == [alarm]
    (run.path.parent.parent / "broken").unlink()
    assert modtrain("evaluate", run.path).code == 0
    status = json.loads(modtrain("status", run.path, "--json").out)
    assert (status["evaluation_failure"], status["alarms"]) == (None, [])
    assert modtrain("status", run.path, "--watch").code == 0


def test_a_worker_without_a_launcher_ends_with_the_failure_and_its_run_stays_finished(run: Run) -> None:
    with pytest.raises(ModtrainError, match="returned a dict") as failed:
        train(run, run.modules, unattended=True)
    assert failed.value.exit_code == 1
    assert run.stop_request() is None
    assert run.is_finished(run.modules)
    assert json.loads(run.evaluation_failure_path.read_text())["says"] == SAYS


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("return undefined", "`evaluate` failed in {mine}, line {line}, in evaluate: NameError: "),
        ('raise InputError("Too few points.")', "Too few points."),
    ],
)
def test_modtrain_evaluate_exits_with_1_where_the_recipe_fails_and_with_2_for_a_wrong_option(
    run: Run, wrong: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain, recipe = Terminal(capsys, monkeypatch), Path(run.spec.recipe)
    text = recipe.read_text().replace('return {"mean": 1.0}', wrong)
    recipe.write_text(text.replace('description="random', 'test=1, description="random'))
    failed = modtrain("evaluate", run.path, "--trust-recipe")
    said = says.format(mine=recipe, line=text[: text.index(wrong)].count("\n") + 1)
    assert (failed.code, said in failed.err) == (1, True), failed.err
    assert modtrain("evaluate", run.path, "--trust-recipe", "--device", "gpu").code == 2


def test_data_without_a_test_set_is_no_failed_evaluation(run: Run) -> None:
    (run.path.parent.parent / "broken").rename(run.path.parent.parent / "untested")
    with pytest.raises(NothingToEvaluate, match="no test points"):
        evaluate(run)
    train(run, run.modules, unattended=True)
    assert not run.evaluation_failure_path.exists()
