"""Peers of other workers are frozen published copies, as old as the run allows; those of the same worker are live."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from modtrain import plugins
from modtrain.dashboard import timeline
from modtrain.errors import InputError, PeerTimeout
from modtrain.recipes.loading import params_of, recipe_of
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.history import SCORES
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Change
from modtrain.training import serialization
from modtrain.training.peers import Peers
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from tests.support import SUPPORT
from tests.support.losses import SMALL as SIZES
from tests.support.losses import TINY_IMAGES, merged
from tests.support.runs import finish, make_run, train_apart, weights_of
from tests.support.three import recipe_of_three

APART = [["generator"], ["discriminator"]]
SMALL: dict[str, dict[str, Any]] = {
    "biggan": SIZES["biggan"],
    "cyclegan": SIZES["cyclegan"] | TINY_IMAGES,
    "dcgan": merged(SIZES["dcgan"], generator={"lambda_information": 1.0}),
    "latent-translation": merged(
        SIZES["latent-translation"] | TINY_IMAGES, translator={"starts_at": 0.0}, discriminator={"starts_at": 0.0}
    ),
    "pix2pix": merged(SIZES["pix2pix"] | TINY_IMAGES, batch_size=8, recogniser={"classes": 12}),
    "progressive-gan": SIZES["progressive-gan"],
    "progressive-srgan": SIZES["progressive-srgan"],
    "srgan": SIZES["srgan"] | {"crops": 16},
}
"""Parameters that make a recipe of the package small, with its built-in data."""


def sha256(net: nn.Module) -> str:
    return hashlib.sha256(serialization.pack_weights(net)).hexdigest()


@pytest.mark.parametrize("name", plugins.built_in("recipe"))
def test_a_worker_changes_only_its_own_weights(tmp_path: Path, name: str) -> None:
    recipe = plugins.load("recipe", name)
    run = make_run(tmp_path / "run", name, [[module] for module in recipe.trained], params=SMALL[name], epochs=5)
    with Shutdown(run) as shutdown:
        workers = [
            Worker(
                run,
                [module],
                Heartbeat([run.heartbeat_path(module)]),
                shutdown,
                WorkerEvents(run, [module]),
                device="cpu",
            )
            for module in recipe.trained
        ]
        for worker in workers:
            worker._publish(full=True)
        initial = weights_of(run)
        initial_nets = {worker.learners[0].name: copy.deepcopy(worker.learners[0].net) for worker in workers}
        for worker in workers:
            worker.peers.refresh(at_least=0, poll=lambda _: None, waited=lambda *_: None)
            worker.nets = worker._build_nets()
            while not worker.learners[0].trains:  # an earlier stage trains others
                worker.position = worker.timeline.at_epoch(worker.position.epoch + 1)
                worker._enter_stage()
            with contextlib.closing(worker._draws(0)) as steps:
                for batches in itertools.islice(steps, 3):
                    worker.train_on(*batches)
            for peer, nets in worker.peers.nets().items():
                if recipe.modules[peer].frozen_mode == "train":  # the statistics of the copy, which is never published
                    for name, statistic in nets[0].named_buffers():
                        statistic.copy_(initial_nets[peer].get_buffer(name))
                assert [sha256(net) for net in nets] == [initial[peer]], f"{peer} changed"
                assert not any(weight.requires_grad or weight.grad is not None for weight in nets[0].parameters())
            own = worker.learners[0]
            assert sha256(own.net) != initial[own.name], f"{own.name} did not learn"
            own.metrics.check()
            if own.name.startswith("discriminator"):
                assert set(SCORES) <= own.metrics.means.keys(), f"no alarm can read the scores of {own.name}"


def test_in_lockstep_every_version_was_trained_against_peers_of_the_epoch_before(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, APART, max_staleness=0, epochs=5)
    train_apart(run)
    for module, peer in (("generator", "discriminator"), ("discriminator", "generator")):
        seen = [checkpoint.peers[peer]["epoch"] for checkpoint in run.store(module).history() if checkpoint.step]
        assert seen == [0, 1, 2, 3, 4]


def test_exchange_points_inside_an_epoch_publish_weights_and_pull_the_peers(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(
        tmp_path / "run", tiny_recipe, APART, exchange_every=3, max_staleness=0, params={"pause_s": 0.05}, epochs=2
    )
    train_apart(run)
    history = run.store("generator").history()
    assert [(checkpoint.step, checkpoint.full) for checkpoint in history] == [
        (0, True),
        *[(step, False) for step in (3, 6, 9)],
        (10, True),
        *[(step, False) for step in (12, 15, 18)],
        (20, True),
    ]
    used = [checkpoint.peers["discriminator"]["versions"][0] for checkpoint in history[1:]]
    assert used == sorted(used)
    assert used[3] > used[0], "newer peers are pulled within an epoch"


def test_in_lockstep_by_exchange_a_fast_worker_waits_inside_an_epoch_for_a_slow_one(tmp_path: Path) -> None:
    source = (SUPPORT / "tiny.py").read_text()
    recipe = tmp_path / "slow_generator.py"
    recipe.write_text(source.replace("    loss = nets.average", "    time.sleep(0.03)\n    loss = nets.average"))
    run = make_run(tmp_path / "run", recipe, APART, exchange_every=3, max_staleness="exchange", epochs=2)
    train_apart(run)
    versions = run.store("discriminator").history()[1:]
    assert [each.step for each in versions] == [3, 6, 9, 10, 12, 15, 18, 20]
    behind = [each.step - each.peers["generator"]["step"] for each in versions]
    assert behind == [3, 3, 3, 1, 2, 3, 3, 2], "the generator of the exchange point before"
    (pair, _) = timeline.staleness({name: run.store(name).history() for name in run.modules}, run.spec)
    assert pair["bound"] == 3


def test_a_wait_at_an_exchange_point_ends_with_the_step_that_the_peer_did_not_reach(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    values = {"exchange_every": 4, "max_staleness": "exchange", "epochs": 2, "peer_timeout_s": 0.3}
    run = make_run(tmp_path / "run", tiny_recipe, APART, **values)
    with pytest.raises(PeerTimeout, match="for generator to publish epoch 0; it has published nothing"):
        finish(run, "discriminator")  # its version 0 is published
    with pytest.raises(PeerTimeout, match="for discriminator to publish step 4; it is at 0"):
        finish(run, "generator")


def test_an_edge_that_asks_for_the_last_versions_gets_them_newest_first(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, APART, max_staleness=0, epochs=6, params={"opponents": 3})
    train_apart(run)
    lineage = [checkpoint.peers["discriminator"]["versions"] for checkpoint in run.store("generator").history()[1:]]
    assert lineage == [[0], [1, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2], [5, 4, 3]]


def test_modules_of_one_worker_have_no_frozen_peers(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]])
    finish(run)
    assert all(checkpoint.peers == {} for checkpoint in run.store("generator").history())


def test_waiting_for_a_peer_has_a_deadline_and_names_the_peer(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, APART, peer_timeout_s=0.5)
    with pytest.raises(PeerTimeout, match=r"Waited 0\.5 s for discriminator .* published nothing \(never started\)"):
        finish(run, "generator")


def test_an_evaluation_may_take_longer_than_the_deadline_of_a_wait(tmp_path: Path) -> None:
    source = (SUPPORT / "tiny.py").read_text()
    slow = tmp_path / "slow.py"
    slow.write_text(source.replace("return Evaluation(", "time.sleep(1.8); return Evaluation("))
    values = {"params": {"batches": 1}, "epochs": 2, "max_staleness": 0, "evaluate_every": 1}
    run = make_run(tmp_path / "run", slow, APART, peer_timeout_s=1, **values)
    train_apart(run)
    assert run.is_finished(run.modules)
    waits = [row["seconds_evaluation"] for row in run.history() if row.get("seconds_evaluation", 0) > 1.7]
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("reports", "is_enough"),
    [
        ({"discriminator": {"evaluating": 1}}, True),
        ({"discriminator": {"waiting_for": "third"}, "third": {"evaluating": 1}}, True),
        ({"discriminator": {}}, False),
        ({"discriminator": {"waiting_for": "third"}, "third": {"waiting_for": "discriminator"}}, False),
        ({"discriminator": {"evaluating": 1, "pid": 2**22 + 1}}, False),
        ({"discriminator": {"waiting_for": "third"}, "third": {"evaluating": 1, "state": "failed"}}, False),
    ],
    ids=["evaluates", "waits for one that does", "trains", "circle", "was killed", "waits for one that failed"],
)
def test_only_a_live_worker_that_evaluates_is_waited_for_longer(
    tmp_path: Path, tiny_recipe: Path, reports: dict[str, dict[str, Any]], is_enough: bool
) -> None:
    three = recipe_of_three(tmp_path / "three.py", tiny_recipe)
    run = make_run(tmp_path / "run", three, [["third"], *APART], peer_timeout_s=0.05)
    run.make_module_folders(run.modules)
    recipe = recipe_of(run)
    peers = Peers(run, recipe, params_of(run.spec, recipe), ["generator"], "cpu")
    publisher = Publisher(run.store("discriminator"), "other")
    began_at = time.monotonic()

    def publish_late(_: str) -> None:
        if publisher.last < 0 and time.monotonic() > began_at + 0.2:
            net = recipe.modules["discriminator"].build(params_of(run.spec, recipe))
            publisher.publish({WEIGHTS: serialization.pack_weights(net)}, epoch=0, step=0)

    with contextlib.ExitStack() as stack:
        for module, report in reports.items():
            stack.enter_context(Heartbeat([run.heartbeat_path(module)], **{"state": "running", **report}))
        if not is_enough:
            stack.enter_context(pytest.raises(PeerTimeout))
        peers.refresh(at_least=0, poll=publish_late, waited=lambda *_: None)


def test_a_version_that_does_not_fit_leaves_the_peer_that_is_there_and_the_wait_names_its_weights(
    tmp_path: Path, tiny_recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, APART, peer_timeout_s=0.3)
    recipe = recipe_of(run)
    params = params_of(run.spec, recipe)
    publisher = Publisher(run.store("discriminator"), "other")
    peers = Peers(run, recipe, params, ["generator"], "cpu")

    def publish(net: nn.Module, epoch: int) -> None:
        publisher.publish({WEIGHTS: serialization.pack_weights(net)}, epoch=epoch, step=epoch)

    def refresh(epoch: int) -> None:
        peers.refresh(at_least=epoch, poll=lambda _: None, waited=lambda *_: None)

    fitting = recipe.modules["discriminator"].build(params)
    publish(fitting, 0)
    refresh(0)
    publish(nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(0.2), nn.Linear(9, 1)), 1)
    with pytest.raises(PeerTimeout, match=r"its version 1 does not fit the recipe: .*0\.weight is \(9, 4\) instead of"):
        refresh(1)
    assert [sha256(net) for net in peers.nets()["discriminator"]] == [sha256(fitting)], "the peer that it had is there"
    assert peers.lineage({"discriminator": 1})["discriminator"]["versions"] == [0]
    assert caplog.text.count("Skipped version 1") == 1
    publish(fitting, 2)
    refresh(2)
    assert peers.lineage({"discriminator": 1}) == {"discriminator": {"versions": [2], "epoch": 2, "step": 2}}


def test_the_last_version_of_a_module_that_is_finished_is_enough_for_its_readers(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    short = make_run(tmp_path / "run", tiny_recipe, APART, max_staleness=0, epochs=1, peer_timeout_s=20)
    train_apart(short)
    last = short.store("generator").latest()
    assert last is not None
    filesystem.retire_folder(short.store("generator").folder(last.version))
    run = short.replace_spec(short.spec.model_copy(update={"epochs": 4}))
    finish(run, "generator")
    finished = run.store("discriminator").latest()
    assert finished is not None
    assert (finished.epoch, finished.final) == (1, True)
    trained = [checkpoint for checkpoint in run.store("generator").history() if checkpoint.step]
    assert [checkpoint.epoch for checkpoint in trained] == [1, 2, 3, 4]
    assert [checkpoint.peers["discriminator"]["epoch"] for checkpoint in trained] == [1, 1, 1, 1]
    assert run.is_finished(run.modules)


def test_a_run_that_was_prolonged_waits_for_newer_versions_than_those_of_its_first_end(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    short = make_run(tmp_path / "run", tiny_recipe, APART, max_staleness=0, epochs=1, peer_timeout_s=0.3)
    train_apart(short)
    change = Change(name="epochs", before=1, after=3, at=0.0)
    run = short.replace_spec(short.spec.model_copy(update={"epochs": 3, "changes": [change]}))
    with pytest.raises(PeerTimeout, match="for discriminator to publish epoch 2; it is at 1"):
        finish(run, "generator")


def test_a_stop_request_ends_a_wait(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, APART)
    timer = threading.Timer(1.5, run.request_stop, ["not today"])
    timer.start()
    with pytest.raises(Exception, match="not today"):
        finish(run, "generator")
    timer.join()


def test_a_loss_that_uses_a_module_it_does_not_read_is_an_error_that_names_reads(tmp_path: Path) -> None:
    source = (SUPPORT / "tiny.py").read_text()
    path = tmp_path / "undeclared.py"
    path.write_text(source.replace('reads=("generator",),', ""))
    run = make_run(tmp_path / "run", path, [["generator", "discriminator"]])
    with pytest.raises(InputError, match=r"'discriminator' uses 'generator'.*`reads` of 'discriminator'"):
        finish(run)


def test_joint_training_publishes_nothing_inside_an_epoch(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], exchange_every=2, epochs=2)
    finish(run)
    assert [checkpoint.step for checkpoint in run.store("generator").history()] == [0, 10, 20]
