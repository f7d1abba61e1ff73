"""Which commands are restarted, after which pauses, and when they are given up."""

from __future__ import annotations

import pytest

from modtrain.scheduling.launcher import Member
from modtrain.scheduling.restarts import MAX_RESTARTS, restart_pause_s, wants_restart


@pytest.mark.parametrize(
    ("exit_code", "again"),
    [*[(code, False) for code in (0, 1, 2, 3, 4, 5, 130)], *[(code, True) for code in (6, 75, -9, 137)]],
)
def test_only_commands_that_were_killed_or_preempted_or_lost_storage_are_restarted(exit_code: int, again: bool) -> None:
    assert wants_restart(exit_code) is again


def test_a_command_that_fails_quickly_is_restarted_after_growing_pauses_and_given_up_after_the_limit() -> None:
    pauses = [restart_pause_s(failures) for failures in range(1, MAX_RESTARTS + 2)]
    assert pauses[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert pauses[-2:] == [30.0, None]


def test_a_long_run_resets_the_count_of_quick_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(0, ["generator"])
    assert all(member.restart_later(137) for _ in range(MAX_RESTARTS))
    monkeypatch.setattr("modtrain.scheduling.restarts.QUICK_FAILURE_S", 0)
    assert not member.restart_later(6), "a worker has waited for its storage itself"
    assert member.restart_later(137)
    assert member.is_due
