"""Recipes whose score has a peak: with early stopping a run of one ends before its last epoch."""

from __future__ import annotations

from pathlib import Path

from modtrain.storage.run import Run
from tests.support.staged import staged_recipe

CHANGES = {
    "    return Evaluation(": """    score = 10 - abs(test - float(nets.discriminator.steps))
    return Evaluation(metrics={"score": score, "mean": 1.0})
    Evaluation(""",
    "def optimizer(": """class Judge(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        self.register_buffer("steps", torch.zeros(()))


def optimizer(""",
    "    on_real, on_fake = ": """    nets.discriminator.steps += 1
    on_real, on_fake = """,
    "nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))": "Judge()",
    "description=": "test=20, valid=3, description=",
}
RULE = "score,window=2,patience=1"
EARLY = ("--epochs", 12, "--early-stop", RULE, "--metric", "score", "--max-staleness", 0, "--set", "batches=1")
"""Options with which a recogniser of its own worker is finished after four epochs, the others after some eight."""


def peaked_recipe(path: Path, tiny: Path) -> Path:
    """Write the tiny recipe with a score that is best after three epochs on validation data, after 20 on test data."""
    text = tiny.read_text()
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def peaked_stages(folder: Path, tiny: Path) -> Path:
    """Write that recipe with a recogniser that is trained first, and finished before the others."""
    return staged_recipe(folder / "staged.py", peaked_recipe(folder / "peaked.py", tiny))


def check_ended_early(run: Run) -> None:
    """Assert that the recogniser was finished with its stage, and the others where early stopping ended the run."""
    last = {module: run.store(module).latest() for module in run.modules}
    ends = {module: (newest.epoch, newest.final) for module, newest in last.items() if newest}
    outcome = run.early_stop_outcome()
    assert outcome
    assert outcome.best
    assert outcome.stopped_at
    assert ends.pop("recogniser") == (4, True)
    assert {final for _, final in ends.values()} == {True}
    assert all(outcome.stopped_at <= epoch < 12 for epoch, _ in ends.values()), (outcome, ends)
