"""Every step has one epoch, batch, stage and progress, whatever the lengths of the stages and their epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modtrain.training.timeline import Stretch, Timeline

stretches = st.lists(
    st.builds(
        Stretch,
        stage=st.sampled_from(["train", "4", "8-fade", "8"]),
        epochs=st.integers(0, 5),
        steps_per_epoch=st.integers(1, 7),
    ),
    min_size=1,
    max_size=4,
).filter(lambda drawn: any(stretch.epochs for stretch in drawn))


quick = settings(deadline=None, max_examples=50)


def walk(timeline: Timeline) -> Iterator[tuple[int, int, int, str, int, int]]:
    """Every batch of a run, counted one by one: step, epoch, batch, stage, step of the stage, steps of the stage."""
    step = epoch = 0
    for stretch in timeline.stretches:
        step_of_stage = 0
        for _ in range(stretch.epochs):
            for batch in range(stretch.steps_per_epoch):
                yield step, epoch, batch, stretch.stage, step_of_stage, stretch.epochs * stretch.steps_per_epoch
                step, step_of_stage = step + 1, step_of_stage + 1
            epoch += 1


@quick
@given(stretches)
def test_a_position_is_what_counting_the_batches_one_by_one_gives(drawn: list[Stretch]) -> None:
    timeline = Timeline(stretches=tuple(drawn))
    batches = list(walk(timeline))
    assert timeline.steps == len(batches)
    assert timeline.epochs == batches[-1][1] + 1
    for step, epoch, batch, stage, step_of_stage, steps_of_stage in batches:
        position = timeline.at(step)
        assert (position.step, position.epoch, position.epoch_step, position.stage) == (step, epoch, batch, stage)
        assert position.progress == step / len(batches) < 1
        assert position.stage_progress == step_of_stage / steps_of_stage < 1
        assert position.is_epoch_boundary == (batch == 0)
        assert epoch <= position.epochs < epoch + 1


@quick
@given(stretches, st.integers(0, 3))
def test_the_end_of_a_run_and_every_step_beyond_is_the_end_of_its_last_epoch(drawn: list[Stretch], beyond: int) -> None:
    timeline = Timeline(stretches=tuple(drawn))
    end = timeline.at(timeline.steps + beyond)
    assert (end.step, end.epoch, end.epoch_step, end.epochs) == (timeline.steps, timeline.epochs, 0, timeline.epochs)
    assert end.progress == end.stage_progress == 1
    assert end.is_epoch_boundary


@quick
@given(stretches, st.none() | st.integers(1, 9))
def test_weights_are_exchanged_every_so_many_steps_but_not_where_an_epoch_ends_anyway(
    drawn: list[Stretch], every: int | None
) -> None:
    timeline = Timeline(stretches=tuple(drawn), exchange_every=every)
    expected = {step for step, _, batch, *_ in walk(timeline) if every and step % every == 0 and batch}
    assert {step for step in range(timeline.steps + 1) if timeline.is_exchange_point(step)} == expected


@quick
@given(stretches, st.integers(1, 3))
def test_the_progress_of_the_last_stage_is_held_where_it_was_made_longer_and_schedules_are_held(
    drawn: list[Stretch], longer: int
) -> None:
    short = Timeline(stretches=tuple(drawn))
    *others, last = drawn
    prolonged = (*others, replace(last, epochs=last.epochs + longer))
    held = Timeline(stretches=prolonged, schedule_epochs=short.epochs)
    for step in range(held.steps):
        expected = short.at(step if step < short.steps else short.steps - 1)
        if last.epochs or step < short.steps:
            assert held.at(step).stage_progress == expected.stage_progress
            assert held.at(step).schedule_progress == expected.schedule_progress


@quick
@given(stretches, st.integers(1, 25))
def test_schedules_cover_the_run_or_hold_the_value_of_their_last_step(drawn: list[Stretch], epochs: int) -> None:
    whole, held = Timeline(stretches=tuple(drawn)), Timeline(stretches=tuple(drawn), schedule_epochs=epochs)
    covered = [step for step, epoch, *_ in walk(whole) if epoch < epochs]
    for step in range(whole.steps + 1):
        assert whole.at(step).schedule_progress == whole.at(step).progress
        expected = step if len(covered) == whole.steps else min(step, covered[-1])
        assert held.at(step).schedule_progress == expected / len(covered)
