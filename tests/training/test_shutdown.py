"""Shutdown: storage that does not answer for once stops no worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from modtrain.errors import StopRequested
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from modtrain.training import shutdown as shutdown_module
from modtrain.training.shutdown import Shutdown
from tests.support.runs import make_run


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    return make_run(tmp_path / "run", tiny_recipe, [["generator"], ["discriminator"]])


def test_a_stop_request_that_cannot_be_read_is_asked_for_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown_module, "STOP_POLL_S", 0.0)
    run.request_stop("lunch")
    failures: list[Path] = []

    def fail(folder: Path) -> list[str]:
        failures.append(folder)
        raise OSError(5, "Input/output error")

    with Shutdown(run) as shutdown:
        with monkeypatch.context() as patch:
            patch.setattr(filesystem, "names", fail)
            assert shutdown.reason() is None
        assert failures == [run.path]
        reason = shutdown.reason()
        assert reason is not None
        assert reason.kind is StopRequested
