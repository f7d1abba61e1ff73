"""Which commands are restarted, after which pauses, and when they are given up."""

from __future__ import annotations

import pytest

from modtrain.scheduling.restarts import MAX_RESTARTS, RestartBackoff, wants_restart


@pytest.mark.parametrize(
    ("exit_code", "again"),
    [(0, False), (1, False), (3, False), (4, False), (5, False), (130, False), (75, True), (-9, True), (137, True)],
)
def test_only_killed_or_preempted_commands_are_restarted(exit_code: int, again: bool) -> None:
    assert wants_restart(exit_code) is again


def test_a_command_that_fails_quickly_is_restarted_after_growing_pauses_and_given_up_after_the_limit() -> None:
    backoff = RestartBackoff()
    pauses = [backoff.pause_s(1.0) for _ in range(MAX_RESTARTS + 1)]
    assert pauses[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert pauses[-2:] == [30.0, None]


def test_a_long_run_resets_the_count_of_quick_failures() -> None:
    backoff = RestartBackoff()
    for _ in range(MAX_RESTARTS):
        backoff.pause_s(1.0)
    assert backoff.pause_s(1000.0) == 0.0
