"""TensorBoard, and on request W&B and MLflow, get the values of metrics.jsonl; none of them disturbs training."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib import request

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from modtrain import plugins
from modtrain.errors import InputError
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage import filesystem
from modtrain.storage.history import History
from modtrain.storage.run import Run
from modtrain.training.evaluation import evaluate
from modtrain.training.trackers import base
from modtrain.training.trackers.tensorboard import EventFile, TensorBoard
from tests.support import runs
from tests.support.store_faults import mounts

TOGETHER = [["generator", "discriminator"]]
BOTH = "generator,discriminator"


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by scalar that TensorBoard shows of a folder of event files."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def measured(run: Run, module: str) -> dict[str, list[tuple[int, float]]]:
    """The same of metrics.jsonl."""
    history = History(run)
    history.refresh()
    points_by_name = dict[str, list[tuple[int, float]]]()
    curve = history.curve(module)
    for name, column in {**curve.scalars, "lr": curve.position["lr"]}.items():
        points = zip(curve.position["step"], column, strict=True)
        points_by_name[name] = [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    return points_by_name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    path = tmp_path_factory.mktemp("tracked") / "run"
    run = runs.make_run(path, tiny_recipe, TOGETHER, params={"batches": 50, "lr": 0.02}, epochs=2)
    runs.finish(run)
    evaluate(run)
    return run


def test_tensorboard_shows_the_numbers_of_metrics_jsonl(finished: Run) -> None:
    for module in finished.modules:
        assert shown(finished.path / "events" / module) == measured(finished, module)


def test_tensorboard_shows_the_evaluation_and_its_final_metric(finished: Run) -> None:
    history = History(finished)
    history.refresh()
    [evaluation] = history.evaluations()
    curves = shown(finished.path / "events" / "evaluation")
    assert curves == {"mean": [(100, pytest.approx(evaluation.metrics["mean"], rel=1e-6))]}


def test_tensorboard_shows_the_parameters_with_the_metrics_of_all_folders_below(finished: Run) -> None:
    events = EventAccumulator(str(finished.path / "events"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["lr"].number_value == 0.02
    assert hparams["epochs"].number_value == 2
    assert hparams["recipe"].string_value == finished.spec.recipe


def test_a_sample_grid_is_an_image(tmp_path: Path, finished: Run) -> None:
    from PIL import Image

    Image.new("RGB", (12, 8), "red").save(tmp_path / "grid.png")
    board = TensorBoard(base.Subject(run=finished, modules=("pictures",), step=None))
    board.picture(tmp_path / "grid.png", step=7, at=time.time())
    events = EventAccumulator(str(finished.path / "events" / "pictures"))
    events.Reload()
    [image] = events.Images("samples")
    assert (image.step, image.width, image.height) == (7, 12, 8)
    assert image.encoded_image_string == (tmp_path / "grid.png").read_bytes()


def test_one_event_a_line_and_little_space(finished: Run) -> None:
    for module in finished.modules:
        [file] = (finished.path / "events" / module).iterdir()
        lines = (finished.module_path(module) / "metrics.jsonl").read_bytes().splitlines()
        assert file.stat().st_size < 200 * (len(lines) + 1)


def test_a_worker_that_was_killed_leaves_no_zigzag(tmp_path: Path, tiny_recipe: Path) -> None:
    values = {"params": {"batches": 50, "pause_s": 0.02}, "epochs": 4}
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, **values)
    process = runs.start_worker(run, BOTH)
    path = run.path / "events" / "generator"

    def ahead() -> bool | None:
        """Points beyond the newest checkpoint."""
        newest = run.store("generator").latest()
        return (newest is not None and newest.step >= 50 and max(dict(shown(path)["loss"])) > newest.step) or None

    assert filesystem.wait_until(ahead, timeout_s=120)
    process.kill()
    process.communicate()
    runs.finish(run)
    files = list(path.iterdir())
    assert len(files) == 2, "each process writes a file of its own"
    for module in run.modules:
        points = shown(run.path / "events" / module)["loss"]
        assert [step for step, _ in points] == sorted({step for step, _ in points})
        assert dict(measured(run, module)["loss"]).items() <= dict(points).items()


def test_training_does_not_notice_a_full_disk_below_events_and_points_come_again_when_there_is_room(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 20, "pause_s": 0.05}, epochs=12)
    with mounts.tmpfs(run.path / "events", "size=1m") as disk:
        fill(disk / "filler")
        process = runs.start_worker(run, BOTH)
        assert filesystem.wait_until(lambda: b"tensorboard fails" in log(run) or None, timeout_s=120)
        (disk / "filler").unlink()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert log(run).count(b"tensorboard fails") == 1, "it is logged once"
        for module in run.modules:
            assert len(measured(run, module)["loss"]) == 12
            points = shown(disk / module)["loss"]
            assert points[-1][0] == 240
            assert points == measured(run, module)["loss"][-len(points) :]


def test_a_record_for_which_there_was_no_room_leaves_the_file_readable(tmp_path: Path, finished: Run) -> None:
    from PIL import Image

    Image.effect_noise((200, 200), 50).convert("RGB").save(tmp_path / "grid.png")
    with mounts.tmpfs(tmp_path / "run", "size=1m") as disk:
        run = Run(disk, finished.spec)
        board = TensorBoard(base.Subject(run=run, modules=("evaluation",), step=None))
        board.scalars("evaluation", {"mean": 1.0}, step=1, at=1.0)
        fill(disk / "filler")
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - 8192)  # room for the beginning of a picture
        with pytest.raises(OSError, match=r"could be written|No space left"):
            board.picture(tmp_path / "grid.png", step=2, at=2.0)
        (disk / "filler").unlink()
        board.scalars("evaluation", {"mean": 3.0}, step=3, at=3.0)
        assert shown(disk / "events" / "evaluation") == {"mean": [(1, 1.0), (3, 3.0)]}


def fill(path: Path) -> None:
    """Use up all the space that is left."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(iter(lambda: bytes(4096), b""))


def log(run: Run) -> bytes:
    path = run.module_path("generator") / "worker.log"
    return path.read_bytes() if path.exists() else b""


class Broken:
    """A tracker that always raises."""

    package: ClassVar[str] = "json"
    begun: ClassVar[int] = 0

    def __init__(self, subject: base.Subject) -> None:
        Broken.begun += 1

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        raise RuntimeError("out of\norder")

    def picture(self, path: Path, *, step: int, at: float) -> None:
        raise SystemExit(3)

    def close(self, state: str) -> None:
        raise KeyError(state)


class Stuck(Broken):
    """A tracker that blocks until it is released."""

    released: ClassVar[threading.Event]

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        self.released.wait(120)


def with_tracker(monkeypatch: pytest.MonkeyPatch, tracker: type[Any]) -> None:
    real = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda kind, name, **more: tracker if name == "own" else real(kind, name, **more)
    )


def test_a_tracker_that_raises_is_logged_once_and_training_ends_as_without_it(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = runs.make_run(tmp_path / "plain", tiny_recipe, TOGETHER, params={"batches": 40})
    runs.finish(plain)
    with_tracker(monkeypatch, Broken)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 40}, track=["own"])
    with caplog.at_level(logging.WARNING):
        runs.finish(run)
    assert runs.weights_of(run) == runs.weights_of(plain)
    assert [message for message in caplog.messages if "own" in message] == [
        "own fails; training continues without it, and it is tried again: out of order"
    ]
    assert shown(run.path / "events" / "generator") == measured(run, "generator"), "TensorBoard gets it all the same"


def test_a_tracker_that_hangs_costs_a_bounded_time_at_the_end_and_none_before(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_tracker(monkeypatch, Stuck)
    monkeypatch.setattr(Stuck, "released", threading.Event(), raising=False)
    monkeypatch.setattr(base, "FINISH_TIMEOUT_S", 0.5)
    monkeypatch.setattr(base, "MOST_PENDING", 3)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 100}, track=["own"])
    with caplog.at_level(logging.WARNING):
        runs.finish(run)
    assert run.is_finished(run.modules)
    assert "own does not end" in caplog.text
    assert caplog.text.count("own is slower than training") == 1
    Stuck.released.set()  # ends its thread


def test_a_process_does_not_wait_at_its_end_for_the_package_of_a_tracker_that_hangs(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "import atexit, time\n"
        "from modtrain.training.trackers import base\n"
        "base.EXIT_TIMEOUT_S = 0.5\n"
        "class tracker:\n"
        "    def __init__(self, subject): atexit.register(time.sleep, 1000)\n"
        "    def scalars(self, *values, **more): time.sleep(1000)\n"
    )
    values = {"track": [str(tmp_path / "mine.py")], "params": {"nan_at": 25}}
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, **values)
    process = runs.start_worker(run, BOTH)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 5, output
    assert "mine.py does not end" in output
    assert "'loss' of generator became nan" in output


def test_wandb_writes_a_run_of_its_own_offline_without_a_login(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, track=["wandb"])
    process = runs.start_worker(run, BOTH)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "fails" not in output
    assert "does not end" not in output
    [folder] = (run.path / "tracking" / "wandb").glob("offline-run-*")
    [file] = folder.glob("run-*.wandb")
    content = file.read_bytes()
    for name in (b"generator/loss", b"discriminator/on_real", b"run", b"opponents"):
        assert name in content


def test_wandb_that_is_to_go_online_without_a_key_does_not_prompt_and_says_what_to_set(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name, value in (("WANDB_MODE", "online"), ("HOME", str(tmp_path)), ("NETRC", str(tmp_path / "netrc"))):
        monkeypatch.setenv(name, value)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, track=["wandb"])
    process = runs.start_worker(run, BOTH)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "wandb fails" in output
    assert "set WANDB_API_KEY, or run `wandb login` once" in output


def test_mlflow_has_the_values_in_a_file_store_and_a_restarted_worker_continues_its_run(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, track=["mlflow"], params={"batches": 20})
    for _ in range(2):
        process = runs.start_worker(run, BOTH)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        assert "fails" not in output
    [loss] = (run.path / "tracking" / "mlruns" / "0").glob("*/metrics/generator/loss")
    lines = [line.split() for line in loss.read_text().splitlines()]
    assert [(int(step), float(value)) for _, value, step in lines] == measured(run, "generator")["loss"]
    assert (loss.parents[2] / "params" / "batches").read_text() == "20"
    assert "end_time" in (loss.parents[2] / "meta.yaml").read_text()


def test_a_tracker_that_is_not_installed_or_unknown_is_refused_in_one_sentence(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="--track wandb needs the package wandb; install it: pip install wandb"):
        new_spec(Config(recipe=str(tiny_recipe), track=["wandb"]), recipe, TOGETHER)
    with pytest.raises(InputError, match="There is no tracker 'wandbb'; give one of mlflow, tensorboard, wandb"):
        new_spec(Config(recipe=str(tiny_recipe), track=["wandbb"]), recipe, TOGETHER)


def test_a_file_of_the_users_own_is_a_tracker_wherever_the_worker_runs(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "class tracker:\n"
        "    def __init__(self, subject): self.file = subject.run.path / 'calls'\n"
        "    def scalars(self, module, values, *, step, at):\n"
        "        self.file.open('a').write(f'{module} {step}\\n')\n"
        "    def close(self, state): self.file.open('a').write(state)\n"
    )
    monkeypatch.chdir(tmp_path)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, track=["./mine.py"])
    monkeypatch.chdir("/")
    process = runs.start_worker(run, BOTH)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    calls = [f"{module} {step}" for step in (10, 20, 30) for module in TOGETHER[0]]
    assert (run.path / "calls").read_text().splitlines() == [*calls, "finished"]


def test_a_config_may_name_one_tracker_or_several(tiny_recipe: Path) -> None:
    assert Config.model_validate({"track": "mlflow"}).track == ["mlflow"]
    assert Config.model_validate({"track": ["mlflow", "wandb"]}).track == ["mlflow", "wandb"]


def test_launching_and_reading_load_no_tracker(finished: Run) -> None:
    code = (
        "import sys, runpy; sys.argv = ['modtrain', *sys.argv[1:]]\n"
        "try: runpy.run_module('modtrain', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([name for name in ('tensorboard', 'wandb', 'mlflow', 'torch') if name in sys.modules], file=sys.stderr)"
    )
    for words in (["--help"], ["launch", "--help"], ["status", str(finished.path)], ["history", str(finished.path)]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stderr.strip().splitlines()[-1] == "[]", words


def test_a_new_file_comes_after_those_of_machines_whose_clocks_are_ahead(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    (tmp_path / "events.out.tfevents.9000000000.elsewhere.1.1").touch()
    file = EventFile(tmp_path)
    file.append(Event(step=1, wall_time=time.time()))
    EventFile(tmp_path).append(Event(step=2, wall_time=time.time()))
    assert [path.name.split(".")[3] for path in sorted(tmp_path.iterdir())] == ["9000000000", "9000000001"]


def test_run_json_holds_the_defaults(finished: Run) -> None:
    spec = json.loads((finished.path / "run.json").read_text())
    assert spec["defaults"]["lr"] == 0.01
    assert spec["params"]["lr"] == 0.02


def test_tensorboard_itself_shows_all_of_it_from_the_folder_of_the_runs(finished: Run, tmp_path: Path) -> None:
    with (tmp_path / "output").open("w+") as output:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(finished.path.parent), "--port", "0"]
        process = subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=output, stdout=output)
        try:
            address = filesystem.wait_until(lambda: address_in(tmp_path / "output"), timeout_s=120)
            assert address, (tmp_path / "output").read_text()
            groups = filesystem.wait_until(lambda: sessions(address) or None, timeout_s=120)
        finally:
            process.kill()
            process.wait()
    assert groups
    [group] = groups
    assert group["hparams"]["lr"] == 0.02
    metrics = {(each["name"]["group"], each["name"]["tag"]): each["value"] for each in group["metricValues"]}
    assert metrics["generator", "loss"] == measured(finished, "generator")["loss"][-1][1]
    assert metrics["evaluation", "mean"] == shown(finished.path / "events" / "evaluation")["mean"][-1][1]


def address_in(path: Path) -> str | None:
    match = re.search(r"http://127\.0\.0\.1:\d+/", path.read_text())
    return match[0] if match else None


def sessions(address: str) -> list[dict[str, Any]]:
    """The rows of the page HParams, once it has the metrics."""
    columns = [{"group": "generator", "tag": "loss"}, {"group": "evaluation", "tag": "mean"}]
    query = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": column} for column in columns],
        "startIndex": 0,
        "sliceSize": 10,
    }
    post = request.Request(f"{address}data/plugin/hparams/session_groups", json.dumps(query).encode())
    post.add_header("Content-Type", "application/json")
    try:
        with request.urlopen(post, timeout=60) as answer:
            groups: list[dict[str, Any]] = json.load(answer).get("sessionGroups", [])
    except OSError:
        return []
    return groups if groups and len(groups[0].get("metricValues", [])) >= 2 else []


def test_wandb_and_mlflow_on_a_full_disk_disturb_no_training(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, track=["wandb", "mlflow"])
    with mounts.tmpfs(run.path / "tracking", "size=1m") as disk:
        fill(disk / "filler")
        process = runs.start_worker(run, BOTH)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    assert run.is_finished(run.modules)
    assert output.count("mlflow fails") == output.count("wandb fails") == 1
    assert "Traceback" not in output
