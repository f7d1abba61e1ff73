"""Options of the suite, and fixtures that all tests share: a small recipe, and schedulers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Terminal
from tests.support.fake_pbs import Cluster, FakePbs, fake_pbs
from tests.support.fork_server import forked_commands, use_python_path
from tests.support.order import group, rank
from tests.support.raylets import NODE, started
from tests.support.slurm import NoSlurm, Slurm, local_slurm

TESTS = Path(__file__).parent
TINY = TESTS / "support" / "tiny.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails the run")
    parser.addoption("--no-fork", action="store_true", help="start every command as an ordinary process")


def pytest_configure(config: pytest.Config) -> None:
    """One fork server for the suite: the processes of pytest-xdist inherit it, but not the import path.

    Threads that wait for others do not spin, in all processes, so that they leave the cores to other tests.
    """
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when torch is imported
    if hasattr(config, "workerinput"):
        use_python_path()
    elif not config.getoption("--no-fork"):
        forking = contextlib.ExitStack()
        config.add_cleanup(forking.close)
        forking.enter_context(forked_commands())


def pytest_sessionstart() -> None:
    """Handle Ctrl-C also where the suite was started in the background, since child processes inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection() -> None:
    """What is imported stays: its garbage collection would cost each process of pytest-xdist some seconds."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first; the order inside of a file stays."""
    items.sort(key=lambda item: rank(item.path.relative_to(TESTS).as_posix()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that are not UTF-8 in what a test has logged, since pytest-xdist cannot send them."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of pytest-xdist the tests of whole groups; see tests/support/order.py."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group
    return scheduler


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and session.config.getoption("--fail-on-skip"):
        reporter.write_line(f"{len(skipped)} tests were skipped that should have run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Types commands in this process."""
    return Terminal(capsys, monkeypatch)


@pytest.fixture(scope="session")
def tiny_recipe() -> Path:
    """A recipe of two modules that read each other, on random vectors; it trains in a second."""
    return TINY


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The node-local cache of the tests is a fresh folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A real Slurm of three nodes, all on this machine; all commands of the tests use it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(local_slurm())
        except NoSlurm as error:
            pytest.skip(str(error))  # which fails the suite where everything should run
        for name in os.environ:
            if name not in cluster.environment:
                patch.delenv(name)
        patch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        yield cluster


@pytest.fixture(scope="session")
def pbs_pro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    """A simulated PBS Pro of three nodes that checks every directive; see tests/support/fake_pbs."""
    cluster = Cluster(nodes=3, ncpus=2, ngpus=1, kill_delay_s=5)
    with fake_pbs(tmp_path_factory.mktemp("pbs") / "pro", cluster) as pbs:
        yield pbs


@pytest.fixture(scope="session")
def raylets() -> Iterator[Any]:
    """A Ray cluster of three nodes of one CPU each, all on this machine; the processes that join it join no other."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ray itself, at its import
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        for name, value in (loopback | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}).items():
            patch.setenv(name, value)
        import ray
        import ray._private.ray_constants
        from ray.cluster_utils import Cluster

        patch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)  # imported before, without the loopback
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
        system = quick | {"prestart_worker_first_driver": False}
        head = NODE | {"_system_config": system, "include_dashboard": False, "no_monitor": True}
        nodes = started(lambda: Cluster(True, head_node_args=head))
        for _ in range(2):
            started(lambda: nodes.add_node(**NODE))
        yield nodes
        ray.shutdown()
        nodes.shutdown()
