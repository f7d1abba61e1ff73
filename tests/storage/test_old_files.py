"""What was written once stays readable: a run and a checkpoint of every format that was ever released."""

from __future__ import annotations

from pathlib import Path

import pytest

from modtrain.recipes.loading import params_of, recipe_of
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.run import Run
from modtrain.training import serialization

ASSETS = sorted((Path(__file__).parents[1] / "assets").glob("format-*"))


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_an_old_run_opens_with_its_parameters(path: Path) -> None:
    run = Run.open(path)
    params = params_of(run.spec, recipe_of(run))
    assert params.batch_size == 4
    assert params.translator.lr == 1e-4
    assert run.modules == ["encoder_decoder", "translator", "discriminator"]


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_an_old_checkpoint_verifies_and_loads(path: Path) -> None:
    store = CheckpointStore(Run.open(path).module_path("generator"))
    checkpoint = store.verify(1)
    assert checkpoint.final
    assert [old.version for old in store.history()] == [0, 1]
    saved = serialization.unpack_state(store.read(checkpoint, "state.pt"))
    assert saved["step"] == 10
    assert set(saved) == {"step", "optimizer", "averaged", "rng"}
