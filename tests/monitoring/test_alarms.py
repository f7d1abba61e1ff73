"""Alarms: what is wrong in a run, with what to do about it, and no false alarm."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import Diverged
from modtrain.monitoring.adversarial import WINDOW
from modtrain.monitoring.alarms import Alarm, find_alarms
from modtrain.monitoring.status import build_status
from modtrain.scheduling.backends.base import BackendOptions, Job
from modtrain.scheduling.backends.slurm import SlurmBackend
from modtrain.scheduling.profile import Profile
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.history import History, Score
from modtrain.storage.run_snapshot import read_snapshot
from tests.support.runs import finish, make_run, start_worker


class Handwritten:
    """A history of curves, versions and scores, by module, and of evaluations."""

    def __init__(
        self,
        curves: dict[str, list[float]] | None = None,
        versions: dict[str, list[Checkpoint]] | None = None,
        scores: dict[str, list[Score]] | None = None,
        evaluations: Sequence[dict[str, float]] = (),
    ) -> None:
        self._curves, self._versions, self._scores = curves or {}, versions or {}, scores or {}
        self._evaluations = evaluations

    def scores(self, module: str) -> list[Score]:
        return self._scores.get(module, [])

    def evaluations(self) -> list[EvaluationRecord]:
        return [
            EvaluationRecord(versions={}, epochs={"generator": epoch}, metrics=metrics, grid=None, at=None)
            for epoch, metrics in enumerate(self._evaluations)
        ]

    def losses(self, module: str) -> list[float]:
        return self._curves.get(module, [])

    def versions(self, module: str) -> Sequence[Checkpoint]:
        return self._versions.get(module, [])


def version(number: int, interval_s: float) -> Checkpoint:
    return Checkpoint(
        module="generator",
        version=number,
        epoch=number,
        step=number,
        full=True,
        final=False,
        files={},
        metrics={},
        peers={},
        writer="w",
        published_at=interval_s * number,
    )


def status_of(**modules: dict[str, Any]) -> dict[str, Any]:
    """The status of a run of a generator and a discriminator that train, with changes by module."""
    status: dict[str, Any] = {
        "run": "r",
        "path": "/runs/my run",
        "state": "running",
        "stop": None,
        "launcher": None,
        "workers": [],
        "modules": {},
    }
    for number, name in enumerate(("generator", "discriminator")):
        values = {"state": "running", **modules.get(name, {})}
        worker = {"modules": [name], "host": "node1", "pid": 7, "job": None, "waiting_for": None, "trouble": None}
        of_worker = {key: value for key, value in values.items() if key not in ("epoch", "peers", "damaged")}
        status["workers"].append({**worker, "waited_s": None, "exit_code": None, **of_worker})
        module = {"version": 3, "epoch": 5, "rests": False, "worker": number, "age_s": 1.0, "damaged": []} | values
        peers = {
            peer: {"behind_epochs": module["epoch"] - used["epoch"], **used}
            for peer, used in values.get("peers", {}).items()
        }
        status["modules"][name] = module | {"peers": peers}
    return status


def only(alarms: list[Alarm]) -> Alarm:
    assert len(alarms) == 1, alarms
    return alarms[0]


def noisy(*levels: tuple[int, float], spread: float = 0.2) -> list[float]:
    """So many lines at each level, with the noise that a GAN's losses have."""
    draw = random.Random(0)
    return [level * (1 + spread * draw.uniform(-1, 1)) for count, level in levels for _ in range(count)]


def test_a_healthy_run_has_no_alarm(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], epochs=40)
    finish(run)
    history = History(run)
    history.refresh()
    assert len(history.curve("generator")) >= 20
    assert find_alarms(build_status(read_snapshot(run)), history) == []


def test_a_killed_worker_is_an_alarm_with_what_to_do(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(
        tmp_path / "my run", tiny_recipe, [["generator", "discriminator"]], epochs=1000, params={"pause_s": 0.05}
    )
    process = start_worker(run, "generator,discriminator")
    assert filesystem.wait_until(lambda: run.read_report("generator").step or None, timeout_s=120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    worker = run.read_report("generator").process  # where workers are forked, it dies a moment after its stand-in
    assert filesystem.wait_until(lambda: None if worker.is_running() else True, timeout_s=30)
    alarm = only(find_alarms(build_status(read_snapshot(run))))
    assert alarm.level == "bad"
    assert "died without a report" in alarm.says
    assert f"modtrain launch '{run.path}'" in alarm.do
    watched = only(find_alarms({**build_status(read_snapshot(run)), "launcher": 7}))
    assert "Its launcher restarts it" in watched.do
    assert "modtrain launch" not in watched.do, "it would be refused"


def test_a_worker_that_was_given_gpus_and_sees_none_is_an_alarm() -> None:
    given = {"gpus": 2, "device": "cpu"}
    alarm = only(find_alarms(status_of(generator=given, discriminator={"gpus": 1, "device": "cuda:0"})))
    assert (alarm.level, alarm.says) == ("bad", "generator was given 2 GPUs and sees none: it trains on the CPU.")
    assert "'/runs/my run/jobs'" in alarm.do
    assert find_alarms(status_of(generator=given | {"state": "finished"})) == []


@pytest.mark.parametrize(("device", "reported"), [("auto", 1), ("cpu", None)])
def test_a_worker_reports_the_gpus_that_its_job_was_given_unless_it_is_to_use_none(
    device: str, reported: int | None, tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], epochs=1, device=device)
    backend = SlurmBackend(BackendOptions(profile=Profile(gpus=1, leave_out=("--gres",))))
    (script,) = backend.scripts([Job(name="job", command=("true",), log=tmp_path / "jobs" / "0.log")])
    assert "\nexport MODTRAIN_GPUS=1\n" in script.read_text()
    monkeypatch.setenv("MODTRAIN_GPUS", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    finish(run)
    assert run.read_report("generator").gpus == reported
    assert build_status(read_snapshot(run))["workers"][0]["gpus"] == reported


def test_a_loss_that_is_nan_is_an_alarm_with_its_reason(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], params={"nan_at": 4})
    with pytest.raises(Diverged):
        finish(run)
    alarm = only(find_alarms(build_status(read_snapshot(run))))
    assert (alarm.level, "nan at step 4" in alarm.says, "start a new run" in alarm.do) == ("bad", True, True)
    assert alarm.says.count("earning rate") == 1, "advice is not repeated"
    assert "earning rate" not in alarm.do


def test_a_damaged_version_is_an_alarm(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]])
    finish(run)
    meta = run.store("generator").folder(3) / "meta.json"
    meta.write_bytes(meta.read_bytes().replace(b'"epoch":3', b'"epoch":2'))
    alarm = only(find_alarms(build_status(read_snapshot(run))))
    assert "Version 3 of generator is damaged" in alarm.says
    assert "version 2" in alarm.says


def test_trouble_with_publishing_and_a_stop_request_are_alarms() -> None:
    status = status_of(generator={"trouble": "publishing failed 2 times: No space left on device"})
    status["stop"] = "lunch"
    bad, warn = find_alarms(status)
    assert (bad.level, "No space left" in bad.says, "doctor" in bad.do) == ("bad", True, True)
    assert (warn.level, warn.module, "lunch" in warn.says) == ("warn", None, True)
    assert "'/runs/my run'" in warn.do


def test_a_failure_that_follows_from_another_one_is_only_a_warning() -> None:
    status = status_of(
        generator={"state": "failed", "exit_code": 7, "trouble": "Waited 600 s for discriminator"},
        discriminator={"state": "failed", "exit_code": 1, "trouble": "RuntimeError: no memory"},
    )
    assert [(alarm.module, alarm.level) for alarm in find_alarms(status)] == [
        ("discriminator", "bad"),
        ("generator", "warn"),
    ]


@pytest.mark.parametrize(
    ("waited_s", "state", "level"),
    [
        (10.0, "running", None),
        (400.0, "running", "warn"),
        (1.0, "lost", "bad"),
        (1.0, "stopped", "bad"),
        (1.0, "created", None),
        (400.0, "queued", "warn"),
    ],
)
def test_a_wait_is_an_alarm_where_it_is_long_or_in_vain(waited_s: float, state: str, level: str | None) -> None:
    waits = {"state": "waiting", "waiting_for": "discriminator", "waited_s": waited_s}
    alarms = [
        alarm
        for alarm in find_alarms(status_of(generator=waits, discriminator={"state": state}))
        if "waits" in alarm.says or "waited" in alarm.says
    ]
    assert [alarm.level for alarm in alarms] == ([level] if level else [])


def test_how_long_a_wait_may_take_depends_on_the_peer_s_epochs() -> None:
    waits = status_of(generator={"state": "waiting", "waiting_for": "discriminator", "waited_s": 400.0})
    slow = [version(number, 300.0) for number in range(6)]
    assert find_alarms(waits, Handwritten(versions={"discriminator": slow})) == []
    quick = [version(number, 10.0) for number in range(6)]
    assert (
        "waited 7 min for discriminator"
        in only(find_alarms(waits, Handwritten(versions={"discriminator": quick}))).says
    )


def test_an_old_peer_is_an_alarm_while_it_trains() -> None:
    old = {"peers": {"discriminator": {"version": 1, "epoch": 1}}, "epoch": 6}
    assert "epoch 6 and trains against discriminator of epoch 1" in only(find_alarms(status_of(generator=old))).says
    assert find_alarms(status_of(generator=old, discriminator={"state": "finished"})) == []
    assert find_alarms(status_of(generator={**old, "epoch": 3})) == []


def test_what_was_trained_against_an_old_peer_stays_said_when_the_run_is_over() -> None:
    old = {"peers": {"discriminator": {"version": 1, "epoch": 1}}, "epoch": 6, "state": "finished"}
    alarm = only(find_alarms(status_of(generator=old, discriminator={"state": "finished"})))
    assert alarm.says == "generator is at epoch 6 and trained last against discriminator of epoch 1."


def test_the_last_version_of_a_module_that_ended_early_is_not_too_old() -> None:
    used = {"peers": {"discriminator": {"version": 1, "epoch": 1}}, "epoch": 6, "state": "finished"}
    assert find_alarms(status_of(generator=used, discriminator={"state": "finished", "epoch": 1})) == []


def test_an_overdue_version_is_an_alarm() -> None:
    versions = {"generator": [version(number, 100.0) for number in range(6)]}
    history = Handwritten(versions=versions)
    assert find_alarms(status_of(generator={"age_s": 250.0}), history) == []
    assert (
        "nothing for 10 min; it used to take 100 s"
        in only(find_alarms(status_of(generator={"age_s": 600.0}), history)).says
    )
    assert find_alarms(status_of(generator={"age_s": 600.0, "state": "finished"}), history) == []


HEALTHY = [
    {"generator": noisy((20, 1.0), (200, 0.3)), "discriminator": noisy((20, 1.0), (200, 0.5))},
    {"generator": noisy((300, 0.4), (60, 0.01)), "discriminator": noisy((360, 0.5))},  # a reconstruction: good
    {"generator": noisy((100, 0.3), (100, 0.7)), "discriminator": noisy((100, 0.5), (100, 0.2))},  # it swings
    {"generator": noisy((200, -2.0)), "discriminator": noisy((200, -50.0))},  # WGAN: no floor
    {"generator": [*noisy((100, 0.3)), 9.0, *noisy((5, 0.3))], "discriminator": noisy((106, 0.5))},  # a spike
    {"generator": noisy((100, 1.0), (300, 1e-3), (20, 0.05)), "discriminator": noisy((420, 0.5))},
    {"generator": [0.0] * 5, "discriminator": [1e9]},
    {"generator": [0.4, 0.8, 1.2, *noisy((90, 1.8))], "discriminator": [20.0, 3.0, 0.7, *noisy((90, 0.5))]},  # a spike
    {"generator": [0.7, 1.5, 2.0, *noisy((90, 2.5))], "discriminator": [1.4, 0.5, 0.2, *noisy((90, 0.12))]},  # strong
    {"encoder": [0.9, 0.1, 0.02, *noisy((90, 0.01))], "discriminator": [0.5, 0.4, 0.5, *noisy((90, 0.5))]},
    {"generator": [math.exp(-s / 20) for s in range(400)], "discriminator": noisy((400, 0.5))},
]


@pytest.mark.parametrize("curves", HEALTHY)
def test_curves_that_may_be_healthy_are_no_alarm(curves: dict[str, list[float]]) -> None:
    assert find_alarms(status_of(), Handwritten(curves)) == []


def test_a_discriminator_that_has_won_is_an_alarm() -> None:
    curves = {"generator": noisy((60, 0.3), (90, 0.95)), "discriminator": noisy((60, 0.5), (30, 0.1), (60, 0.01))}
    alarm = only(find_alarms(status_of(), Handwritten(curves)))
    assert (alarm.module, alarm.level) == ("discriminator", "warn")
    assert "while that of generator rises" in alarm.says
    assert "learning rate of discriminator" in alarm.do


@pytest.mark.parametrize(
    ("generator", "discriminator"),
    [
        ([0.7, 2.0, 3.0, *noisy((90, 6.0))], [1.2, 0.2, 0.02, *noisy((90, 0.004))]),  # cross-entropy
        ([0.4, 0.8, 0.95, *noisy((90, 1.0), spread=0.05)], [0.4, 0.05, 0.01, *noisy((90, 0.005))]),  # least squares
        ([0.7, 0.8, *noisy((10, 0.9), (90, 7.0))], [1.2, 1.3, *noisy((10, 1.0), (90, 0.01))]),  # in its first window
    ],
)
def test_a_discriminator_that_wins_at_once_is_an_alarm(generator: list[float], discriminator: list[float]) -> None:
    curves = {"generator": generator, "discriminator": discriminator}
    assert only(find_alarms(status_of(), Handwritten(curves))).says.startswith("discriminator has won")


def scored(*stretches: tuple[int, float, float]) -> dict[str, list[Score]]:
    """So many lines of a discriminator with each accuracy and gap, and noise on the gap."""
    return {
        "discriminator": [
            Score(accuracy, gap) for count, accuracy, level in stretches for gap in noisy((count, level), spread=0.1)
        ]
    }


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_a_discriminator_has_won_by_its_scores_where_its_loss_may_be_negative(level: float) -> None:
    scores = scored((60, 0.8, level), (30, 0.99, 4.0), (60, 1.0, 20.0))
    alarm = only(find_alarms(status_of(), Handwritten({"discriminator": noisy((150, -20.0))}, scores=scores)))
    assert (alarm.module, alarm.level) == ("discriminator", "warn")
    assert "has won: it has told every real sample from every fake one for 30 lines" in alarm.says
    assert "learning rate of discriminator" in alarm.do


@pytest.mark.parametrize(
    "stretches",
    [
        [(30, 1.0, 3.4), (30, 1.0, 5.6), (90, 0.99, 4.2), (60, 1.0, 5.4)],  # dcgan on the orchard, which learnt well
        [(60, 0.8, 2.0), (60, 1.0, 9.0), (30, 1.0, 5.0)],  # it was ahead, and the generator follows
        [(100, 0.97, 1.0), (100, 0.98, 4.0)],
        [(40, 1.0, 1.0), (40, 1.0, 4.0)],  # short
    ],
)
def test_scores_that_may_be_healthy_are_no_alarm(stretches: list[tuple[int, float, float]]) -> None:
    curves = {"discriminator": noisy((150, 0.2))}
    assert find_alarms(status_of(), Handwritten(curves, scores=scored(*stretches))) == []


@pytest.mark.parametrize(
    ("evaluations", "says"),
    [
        (
            [{"feature_variance_orchard": value} for value in (0.6, 0.8, 0.04, 0.03)],
            "the features of samples have 3% of the variance that those of real images have",
        ),
        (
            [{"coverage_orchard": value} for value in (8, 8, 3, 2)],
            "samples are of 2 classes, after 8",
        ),
        (
            [{"feature_variance_orchard": 0.02}] * 10,
            "the features of samples have 2% of the variance that those of real images have",
        ),
        ([{"feature_variance_orchard": value} for value in (0.05, 0.4, 0.9, 1.1)], None),
        ([{"feature_variance_orchard": value} for value in (0.01, 0.01, 0.02)], None),  # dcgan, which has just begun
        ([{"feature_variance_orchard": value} for value in (0.5, 0.9, 0.05)], None),  # once
        ([{"coverage_orchard": value} for value in (2, 3, 5, 8, 7, 8)], None),
        ([{"psnr": 0.01}, {"psnr": 0.01}], None),
    ],
)
def test_a_collapse_is_an_alarm_once_two_evaluations_show_it(
    evaluations: list[dict[str, float]], says: str | None
) -> None:
    alarms = find_alarms(status_of(), Handwritten(evaluations=evaluations))
    assert [alarm.says for alarm in alarms] == ([f"The generator has collapsed: {says}."] if says else [])


@pytest.mark.parametrize("value", [0.0, 0.693147])
def test_a_loss_that_does_not_change_at_all_is_an_alarm(value: float) -> None:
    curves = {"generator": [*noisy((50, 0.3)), *[value] * WINDOW], "discriminator": noisy((100, 0.5))}
    assert "has not changed" in only(find_alarms(status_of(), Handwritten(curves))).says


def test_a_loss_that_shoots_up_is_an_alarm() -> None:
    curves = {"generator": noisy((100, 0.3), (4, 40.0)), "discriminator": noisy((104, 0.5))}
    assert "shoots up" in only(find_alarms(status_of(), Handwritten(curves))).says


def test_what_a_module_does_not_do_while_its_stage_rests_it_is_no_alarm() -> None:
    """It publishes nothing, its readers wait for the stage to end, and its curve stays as it is."""
    history = Handwritten(
        {"generator": noisy((60, 0.3), (90, 0.95)), "discriminator": noisy((60, 0.5), (30, 0.1), (60, 0.01))},
        {"discriminator": [version(number, 10.0) for number in range(6)]},
    )
    waits = {"state": "waiting", "waiting_for": "discriminator", "waited_s": 900.0}
    trained = status_of(generator=waits, discriminator={"age_s": 900.0})
    assert len(find_alarms(trained, history)) == 3
    resting = status_of(generator=waits, discriminator={"age_s": 900.0, "rests": True})
    assert find_alarms(resting, history) == []


def test_every_alarm_says_what_to_do() -> None:
    curves = {"generator": noisy((100, 0.3), (4, 40.0)), "discriminator": [0.1] * 100}
    for alarm in find_alarms(status_of(generator={"state": "lost"}), Handwritten(curves)):
        assert alarm.says.endswith(".")
        assert alarm.do.endswith(".")


def test_braces_in_a_folder_s_name_stay_as_they_are(tmp_path: Path) -> None:
    status = status_of(generator={"state": "failed", "trouble": "lost its way"}) | {"path": "/runs/a{b}"}
    alarm = find_alarms(status)[0]
    assert (alarm.says, "a{b}" in alarm.do) == ("generator failed: lost its way.", True)
