"""A loss knows the step, the progress and the stage of the run, the same ones when the run resumes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from modtrain.errors import Preempted
from modtrain.storage.history import History
from modtrain.storage.run import Run
from modtrain.training.worker_process import work
from tests.support.runs import finish, make_run, weights_of


@pytest.fixture
def fading(tmp_path: Path, tiny_recipe: Path) -> Path:
    """The tiny recipe with losses that grow during the run, and that return what they know."""
    known = '"steps": torch.tensor(nets.step), "progress": torch.tensor(nets.progress), nets.stage: torch.tensor(1.0)'
    source = tiny_recipe.read_text().replace(
        'return {"loss": loss}', f'return {{"loss": loss * (1 + nets.progress) + nets.step, {known}}}'
    )
    path = tmp_path / "fading.py"
    path.write_text(source)
    return path


def rows_of(run: Run) -> list[dict[str, float]]:
    history = History(run)
    history.refresh()
    return [row for row in history.rows() if row["module"] == "generator"]


@pytest.mark.parametrize(
    ("schedule_epochs", "progress"),
    [(None, [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6]), (1, [0, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])],
)
def test_a_loss_gets_the_position_of_its_batch_also_where_each_batch_is_trained_by_a_worker_of_its_own(
    tmp_path: Path, fading: Path, schedule_epochs: int | None, progress: list[float]
) -> None:
    runs = []
    for name in ("whole", "resumed"):
        run = make_run(tmp_path / name, fading, [["generator", "discriminator"]], params={"batches": 3}, epochs=2)
        runs.append(run.replace_spec(run.spec.model_copy(update={"schedule_epochs": schedule_epochs})))
    whole, resumed = runs
    finish(whole)
    while not resumed.is_finished(resumed.modules):
        with contextlib.suppress(Preempted):
            work(resumed, resumed.modules, threads=1, leave_after_s=0.01)
    rows = rows_of(resumed)
    assert [row["steps"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["progress"] for row in rows] == pytest.approx(progress)
    assert [row["train"] for row in rows] == [1] * 6
    assert weights_of(resumed) == weights_of(whole)
