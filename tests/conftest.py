"""What all tests share: a skipped test fails the suite where everything should run, and a small recipe to train."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY = Path(__file__).parent / "tiny.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails the run")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and session.config.getoption("--fail-on-skip"):
        reporter.write_line(f"{len(skipped)} tests were skipped that should have run", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tiny_recipe() -> Path:
    """A recipe of two modules that read each other, on random vectors; it trains in a second."""
    return TINY
