"""The pages of trained runs, of a sweep, and of single checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modtrain.dashboard.downsampling import kept
from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import as_json, build_version
from modtrain.scheduling.config import Config
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, new_sweep
from tests.support.runs import finish, make_run, start_worker
from tests.support.serving import Served, copied, embedded, served, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    """Two workers at the same time, in lockstep."""
    root = tmp_path_factory.mktemp("runs")
    apart = make_run(root / "apart", tiny_recipe, [["generator"], ["discriminator"]], epochs=2, max_staleness=0)
    other = start_worker(apart, "discriminator")
    try:
        finish(apart, "generator")
        assert other.wait(timeout=200) == 0, other.stdout and other.stdout.read()
    finally:
        other.kill()
        other.communicate()
    return apart


@pytest.fixture(scope="module")
def one(run: Run, tiny_recipe: Path) -> Iterator[Served]:
    root = run.path.parent
    trained(root / "deeper", "judged", tiny_recipe)
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1), {"lr": [0.005, 0.01, 0.02]}, metric="mean")
    sweep = Sweep.create(root / "rates", spec)
    for number in (0, 1):
        finish(sweep.begin(number))
        from modtrain.training.evaluation import final_evaluation

        final_evaluation(sweep.begin(number))
    with served(root) as server:
        yield server


def test_the_page_of_all_runs_has_a_row_of_each(one: Served) -> None:
    shown = one.data("runs")
    rows = {row["path"]: row for row in shown["runs"]}
    assert set(rows) == {"apart", "deeper/judged", "rates"}
    assert shown["root"] == one.root.name
    row = rows["deeper/judged"]
    assert (row["kind"], row["state"], row["progress"], row["epoch"]) == ("run", "finished", 1.0, 2)
    assert row["metric"]["name"] == "mean"
    assert {module["version"] for module in row["modules"]} == {2}
    assert rows["rates"]["kind"] == "sweep"
    assert rows["rates"]["counts"] == {"finished": 2, "created": 1}


def test_a_page_has_its_data_in_it_and_says_where_the_top_is(one: Served) -> None:
    for address, page, base in (
        ("/", "runs", ""),
        ("/run/deeper/judged/", "run", "../../../"),
        ("/sweep/rates/", "sweep", "../../"),
        ("/checkpoint/apart/generator/1/", "checkpoint", "../../../../"),
    ):
        text = one.get(address).text
        assert f'data-page="{page}"' in text
        assert f'data-base="{base}"' in text
        assert 'data-live="true"' in text
        assert embedded(text)["at"]
        assert 'href="/' not in text, "no link knows where the dashboard lies"
        assert 'src="/' not in text
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


@pytest.mark.parametrize("address", ["/run/deeper/judged", "/sweep/rates", "/checkpoint/apart/generator/1"])
def test_an_address_without_its_slash_leads_to_the_one_with_it(one: Served, address: str) -> None:
    answer = one.get(address)
    assert answer.status_code == 307
    assert answer.headers["location"] == "./" + address.rpartition("/")[2] + "/"
    assert one.get(address, follow_redirects=True).status_code == 200


@pytest.mark.parametrize("name", ["https:evil.example", "a:b", "%5Cevil.example"])
def test_an_address_without_its_slash_leads_to_no_other_host(one: Served, name: str) -> None:
    answer = one.get(f"/run/{name}")
    assert answer.next_request is not None
    assert answer.next_request.url == httpx.URL(f"{one.url}/run/{name}/")


def test_a_sweep_offers_the_scalars_of_training_as_curves(one: Served) -> None:
    page = one.data("sweep/rates")
    assert {"generator.loss", "discriminator.loss", "discriminator.on_real"} <= set(page["scalars"])
    curves = one.data("scalar/rates?name=generator.loss")["curves"]
    assert [curve["trial"] for curve in curves] == [0, 1]
    for curve in curves:
        trial = Run.open(one.root / "rates" / f"trial-{curve['trial']:04d}")
        assert (curve["epoch"], curve["value"]) == ([1], [trial.store("generator").meta(1).metrics["loss"]])
    for query in ("", "?name=generator.none", "?name=mean"):
        assert one.get(f"/data/scalar/rates{query}").status_code == 404
    assert one.get("/data/scalar/none?name=generator.loss").status_code == 404


def used(run: Run, module: str, version: int, peer: str) -> list[int]:
    return list(run.store(module).meta(version).peers[peer]["versions"])


def test_a_lane_shows_which_versions_each_version_used(one: Served, run: Run) -> None:
    data = one.data("run/apart")
    lanes = {lane["module"]: lane for lane in data["lanes"]}
    assert [version["version"] for version in lanes["generator"]["versions"]] == [0, 1, 2]
    assert lanes["generator"]["present"] == [0, 1, 2]
    newest = lanes["discriminator"]["versions"][-1]
    assert newest["final"]
    assert newest["peers"] == {"generator": used(run, "discriminator", 2, "generator")}
    assert newest["loss"] == pytest.approx(run.store("discriminator").meta(2).metrics["loss"])


def test_staleness_is_the_steps_between_a_module_and_what_it_used(one: Served, run: Run) -> None:
    lines = {(line["module"], line["peer"]): line for line in one.data("run/apart")["staleness"]}
    for module, peer in (("discriminator", "generator"), ("generator", "discriminator")):
        newest = used(run, module, 2, peer)[0]
        assert lines[module, peer]["step"][-1] == 20
        assert lines[module, peer]["behind"][-1] == 20 - run.store(peer).meta(newest).step


def test_curves_hold_every_scalar_and_the_learning_rate(one: Served) -> None:
    curves = {(curve["module"], curve["name"]): curve for curve in one.data("run/apart")["curves"]}
    assert {("generator", "loss"), ("discriminator", "on_real"), ("discriminator", "lr")} <= set(curves)
    curve = curves["discriminator", "loss"]
    assert len(curve["step"]) == len(curve["epoch"]) == len(curve["at"]) == len(curve["value"]) > 0
    assert curve["step"] == sorted(curve["step"])


def test_configuration_evaluations_and_workers_are_there(one: Served) -> None:
    data = one.data("run/deeper/judged")
    config = {line["name"]: line for line in data["config"]}
    assert config["lr"]["value"] == 0.01
    assert config["epochs"]["value"] == 2
    assert [record["versions"] for record in data["evaluations"]] == [{"generator": 2, "discriminator": 2}]
    assert data["workers"][0]["modules"] == ["generator", "discriminator"]
    assert data["time"][0]["modules"] == ["generator", "discriminator"]
    assert data["run"]["seed"] == 0
    assert data["run"]["sweep"] is None


def test_the_grids_are_those_that_lie_there(tmp_path: Path, run: Run) -> None:
    path = copied(run, tmp_path / "runs" / "drawn")
    (path / "evaluation").mkdir(exist_ok=True)
    line = {"versions": {"generator": 1}, "epochs": {"generator": 1}, "metrics": {"mean": 1.0}, "at": 5.0}
    names = [*(f"/somewhere/else/grid-{number}.png" for number in (1, 2, 3)), "x.html"]
    lines = [{**line, "grid": name} for name in names]
    (path / "evaluation" / "x.html").write_text("<script>alert(1)</script>")
    (path / "evaluation" / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    for number in (1, 2, 4):
        (path / "evaluation" / f"grid-{number}.png").write_bytes(b"\x89PNG %d" % number)
    with served(tmp_path / "runs") as there:
        grids = there.data("run/drawn")["grids"]
        assert [grid["file"] for grid in grids] == ["grid-1.png", "grid-2.png"]
        assert grids[0]["metrics"] == {"mean": 1.0}
        answer = there.get("/grid/drawn/grid-2.png")
        assert answer.content == b"\x89PNG 2"
        assert answer.headers["content-type"] == "image/png"
        assert there.get("/grid/drawn/grid-3.png").status_code == 404
        assert there.get("/grid/drawn/metrics.jsonl").status_code == 404
        assert there.get("/grid/drawn/x.html").status_code == 404


def test_a_grid_that_was_drawn_again_is_the_new_one(tmp_path: Path, run: Run) -> None:
    path = copied(run, tmp_path / "runs" / "drawn") / "evaluation"
    path.mkdir(exist_ok=True)
    (path / "grid-1.png").write_bytes(b"first" * 1000)
    with served(tmp_path / "runs") as there:
        first = there.get("/grid/drawn/grid-1.png")
        assert "no-cache" in first.headers["cache-control"]
        assert "content-encoding" not in first.headers, "a picture is packed already"
        known = {"if-none-match": first.headers["etag"]}
        assert there.get("/grid/drawn/grid-1.png", headers=known).status_code == 304
        (path / "grid-1.png").write_bytes(b"second")
        assert there.get("/grid/drawn/grid-1.png", headers=known).content == b"second"


def test_a_checkpoint_page_has_its_lineage(one: Served, run: Run) -> None:
    data = one.data("checkpoint/apart/generator/2")
    meta = run.store("generator").meta(2)
    assert data["present"]
    assert data["meta"]["step"] == meta.step
    assert {file["name"]: file["sha256"] for file in data["files"]} == {n: f["sha256"] for n, f in meta.files.items()}
    assert {file["name"] for file in data["files"] if file["download"]} == {"weights.safetensors", "ema.safetensors"}
    assert [(used["peer"], used["versions"]) for used in data["trained_against"]] == [
        ("discriminator", used(run, "generator", 2, "discriminator"))
    ]
    users = [version for version in (1, 2) if 2 in used(run, "discriminator", version, "generator")]
    assert [user["version"] for user in data["used_by"]] == users
    assert (data["previous"], data["next"]) == (1, None)
    assert one.get("/data/checkpoint/apart/generator/9").status_code == 404
    assert one.get("/data/checkpoint/apart/unknown/1").status_code == 404


def test_weights_are_what_was_published(one: Served, run: Run) -> None:
    answer = one.get("/weights/apart/generator/2/weights.safetensors")
    assert (
        hashlib.sha256(answer.content).hexdigest()
        == run.store("generator").meta(2).files["weights.safetensors"]["sha256"]
    )
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "apart" in answer.headers["content-disposition"]


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove", "meta"])
def test_verify_names_what_is_damaged(tmp_path: Path, run: Run, damage: str) -> None:
    folder = copied(run, tmp_path / "runs" / "hurt") / "modules/generator/checkpoints/00000002"
    file = folder / "weights.safetensors"
    content = file.read_bytes()
    match damage:
        case "flip":
            file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        case "cut":
            file.write_bytes(content[:-1])
        case "grow":
            file.write_bytes(content + b"x")
        case "remove":
            file.unlink()
        case "meta":
            (folder / "meta.json").write_bytes(b"{" + (folder / "meta.json").read_bytes())
    with served(tmp_path / "runs") as there:
        files = {each["name"]: each for each in there.data("verify/hurt/generator/2")["files"]}
        wrong = "meta.json" if damage == "meta" else "weights.safetensors"
        assert [name for name, each in files.items() if not each["ok"]] == [wrong]
        assert files[wrong]["says"]
        assert all(each["ok"] for each in there.data("verify/hurt/generator/1")["files"])


def test_a_version_that_was_pruned_still_has_its_page(tmp_path: Path, run: Run) -> None:
    path = copied(run, tmp_path / "runs" / "old")
    shutil.rmtree(path / "modules/generator/checkpoints/00000001")
    with served(tmp_path / "runs") as there:
        data = there.data("checkpoint/old/generator/1")
        assert not data["present"]
        assert data["meta"]["epoch"] == 1
        assert not any(file["present"] or file["download"] for file in data["files"])
        lane = next(lane for lane in there.data("run/old")["lanes"] if lane["module"] == "generator")
        assert [version["version"] for version in lane["versions"]] == [0, 1, 2]
        assert lane["present"] == [0, 2]
        assert there.get("/weights/old/generator/1/weights.safetensors").status_code == 404


def test_the_sweep_page_ranks_its_trials_and_says_what_varies(one: Served) -> None:
    data = one.data("sweep/rates")
    assert data["varies"] == ["lr"]
    results = [trial["result"] for trial in data["trials"]]
    assert results[:2] == sorted(results[:2], reverse=True)
    assert [trial["state"] for trial in data["trials"]] == ["finished", "finished", "created"]
    assert data["trials"][-1]["values"] == {"lr": 0.02}
    assert {curve["name"] for curve in data["curves"]} == {"mean"}
    assert data["sweep"]["sampler"] == "grid"
    best = one.data(f"run/{data['trials'][0]['path']}")
    assert best["run"]["sweep"] == "rates"
    assert one.get("/sweep/apart/").status_code == 404
    assert one.get("/run/rates/").status_code == 404


@pytest.fixture
def sweep(tmp_path: Path, tiny_recipe: Path) -> Sweep:
    """Two of three trials are finished and evaluated."""
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1, nodes=1), {"lr": [0.005, 0.01, 0.02]}, metric="mean")
    made = Sweep.create(tmp_path / "runs" / "rates", spec)
    for number in (0, 1):
        make(made.begin(number))
    return made


def make(run: Run) -> None:
    """What the workers of a trial leave in its folder."""
    for module in run.modules:
        publisher = Publisher(run.store(module), "w")
        publisher.publish({"state.pt": b"s"}, epoch=1, step=10, metrics={"loss": 0.5}, final=True)
        (run.module_path(module) / "heartbeat.json").write_text(json.dumps({"state": "finished", "epoch": 1}))
    (run.path / "evaluation").mkdir()
    line = {"at": 1.0, "versions": {}, "epochs": dict.fromkeys(run.modules, 1), "metrics": {"mean": 0.5, "other": 0.1}}
    (run.path / "evaluation" / "metrics.jsonl").write_text(json.dumps(line) + "\n")


def shown_in(source: Source) -> tuple[dict[str, int], dict[int, tuple[str, float | None]], set[str]]:
    """What a sweep's header counts, and of each trial in the table its state and result; the curves."""
    data = source.sweep("rates")
    assert data["problem"] is None
    counts, states = data["sweep"]["counts"], [trial["state"] for trial in data["trials"]]
    assert counts == {state: states.count(state) for state in states}
    trials = {trial["number"]: (trial["state"], trial["result"]) for trial in data["trials"]}
    return counts, trials, {curve["name"] for curve in data["curves"]}


def ranked_by(sweep: Sweep, metric: str) -> Sweep:
    return sweep.with_spec(sweep.spec.model_copy(update={"metric": metric}))


def test_a_sweep_that_is_ranked_by_another_metric_now_shows_that_one(sweep: Sweep) -> None:
    source = Source(sweep.path.parent)
    assert shown_in(source)[1][0] == ("finished", 0.5)
    sweep = ranked_by(sweep, "other")
    assert shown_in(source)[1][0] == ("finished", 0.1)
    ranked_by(sweep, "generator.loss")
    _, trials, curves = shown_in(source)
    assert trials[0] == ("finished", 0.5)
    assert "generator.loss" in curves


def test_a_trial_that_cannot_be_read_says_why_and_costs_no_other(sweep: Sweep) -> None:
    source = Source(sweep.path.parent)
    shown_in(source)
    first, second = (sweep.run_path(number) / "run.json" for number in (0, 1))
    spec, before = json.loads(first.read_text()), second.read_text()
    first.write_text(json.dumps({**spec, "trial": {"number": 0, "values": 5}}))
    second.write_text("{")
    assert shown_in(source)[0] == {"failed": 2, "created": 1}
    trials = {trial["number"]: trial for trial in source.sweep("rates")["trials"]}
    assert all("damaged" in trials[number]["why"] for number in (0, 1))
    assert trials[0]["values"] == {"lr": 0.005}
    second.write_text(before)
    assert shown_in(source)[1][1] == ("finished", 0.5)
    evaluation = sweep.run_path(1) / "evaluation"
    evaluation.rename(evaluation.with_name("moved"))
    evaluation.symlink_to(evaluation.with_name("moved"))
    source = Source(sweep.path.parent)
    assert shown_in(source)[1][1] == ("finished", None)
    (why,) = (trial["why"] for trial in source.sweep("rates")["trials"] if trial["number"] == 1)
    assert "is a link, which is not opened" in why


def test_no_link_inside_of_a_trial_is_followed(sweep: Sweep, tmp_path: Path) -> None:
    sweep = ranked_by(sweep, "generator.loss")
    run = sweep.begin(0)
    elsewhere = Publisher(CheckpointStore(tmp_path / "elsewhere" / "generator"), "w")
    for loss in (0.2, 0.1):
        elsewhere.publish({"state.pt": b"s"}, epoch=1, step=10, metrics={"loss": loss}, final=True)
    for version in (0, 1):
        here = run.store("generator").folder(version)
        shutil.rmtree(here, ignore_errors=True)
        here.symlink_to(elsewhere.store.folder(version))
    assert run.store("generator").meta(1).metrics == {"loss": 0.1}
    source = Source(sweep.path.parent)
    assert shown_in(source)[1][0] == ("finished", None), "no version of it can be read"
    curves = {(curve["trial"], curve["name"]): curve["value"] for curve in source.sweep("rates")["curves"]}
    assert curves[0, "generator.loss"] == [0.5], "as published.jsonl has it"


def test_pending_trials_that_are_not_listed_are_counted(tmp_path: Path, tiny_recipe: Path) -> None:
    config = Config(recipe=str(tiny_recipe), epochs=1, nodes=1)
    spec = new_sweep(config, {"lr": "0.1..0.2"}, sampler="random", trials=1000)
    sweep = Sweep.create(tmp_path / "many", spec)
    source = Source(tmp_path)
    data = source.sweep("many")
    assert (len(data["trials"]), data["more_pending"]) == (200, 800)
    sweep.begin(999)
    data = source.sweep("many")
    assert (len(data["trials"]), data["more_pending"]) == (201, 799)


def test_the_root_may_be_a_run_itself(run: Run) -> None:
    with served(run.path) as there:
        assert [row["path"] for row in there.data("runs")["runs"]] == ["."]
        for address in ("/run/", "/checkpoint/generator/1/", "/data/run/", "/data/log/generator"):
            assert there.get(address).status_code == 200, address
        assert there.data("run/.")["run"]["state"] == "finished"
        assert there.data("run/")["run"]["name"] == "apart"
        assert there.get("/weights/generator/1/weights.safetensors").status_code == 200
        assert 'data-base="../"' in there.get("/run/").text


def test_the_root_may_be_a_sweep_itself(one: Served) -> None:
    with served(one.root / "rates") as there:
        data = there.data("sweep/")
        assert [trial["path"] for trial in data["trials"] if trial["state"] == "finished"]
        assert there.data(f"run/{data['trials'][0]['path']}")["run"]["sweep"] == "."


def test_an_unknown_page_says_so_in_words(one: Served) -> None:
    for address in ("/run/unknown/", "/sweep/unknown/", "/nothing", "/run/deeper/"):
        answer = one.get(address)
        assert answer.status_code == 404
        assert "There is no" in answer.text
        assert "All runs" in answer.text


def test_plotly_comes_from_its_package(one: Served) -> None:
    answer = one.get("/static/plotly.min.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert len(answer.content) > 1_000_000
    assert one.get("/static/plotly.min.js", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_thinning_keeps_the_ends_and_the_extremes() -> None:
    values = [math.sin(number / 100) for number in range(50_000)]
    values[12_345], values[40_001] = 9.0, -9.0
    indices = kept(values)
    assert len(indices) <= 1_000
    assert {0, 12_345, 40_001, 49_999} <= set(indices)
    assert indices == sorted(indices)
    assert kept([1.0, 2.0]) == [0, 1]


def test_nan_and_infinity_become_null_and_estimated_times_do_not_change_the_tag() -> None:
    assert json.loads(as_json({"a": [math.nan, math.inf, 1.5], "b": {"c": -math.inf}})) == {
        "a": [None, None, 1.5],
        "b": {"c": None},
    }
    first, second, third = (
        build_version({"rows": [{"newest_at": at, "step": step}]}) for at, step in ((1, 1), (2, 1), (2, 2))
    )
    assert first.tag == second.tag != third.tag
    assert json.loads(first.payload.content)["rows"] == [{"newest_at": 1, "step": 1}]
