"""Sessions that are used in turns, seen by several processes."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from risk.inline.forks import (
    TOLD_EVERY,
    TRAIL_MAX,
    Spot,
    Trail,
    TrailNote,
    both,
    render_switches,
    restore_switches,
)
from risk.model import Level
from runtime.clock import SystemClock

NOW = SystemClock().now()
OWNER = Spot("a" * 64, "Chrome", "Windows", 64500)
THIEF = Spot("b" * 64, "Chrome", "Windows", 64501)


def note_of(trail: Trail) -> TrailNote:
    return TrailNote(
        tenant_id="default",
        session_id="ses_1",
        level=trail.level.name,
        switches=tuple(trail.switches),
    )


def test_the_first_client_is_no_news_and_the_second_is() -> None:
    trail = Trail()
    trail.step(OWNER, NOW)
    assert trail.news("default", "ses_1", NOW) is None
    trail.step(THIEF, NOW)
    told = trail.news("default", "ses_1", NOW)
    assert told is not None
    assert [spot for spot, _ in told.switches] == [OWNER, THIEF]
    assert trail.news("default", "ses_1", NOW) is None


def test_a_session_that_flaps_is_told_of_now_and_then() -> None:
    trail = Trail()
    told = 0
    for number in range(1_000):
        now = NOW + number * timedelta(milliseconds=10)
        trail.step(OWNER if number % 2 else THIEF, now)
        told += trail.news("default", "ses_1", now) is not None
    assert told <= timedelta(seconds=10) / TOLD_EVERY + 1
    assert len(trail.switches) == TRAIL_MAX


def test_two_processes_that_see_one_client_each_see_the_fork_together() -> None:
    """A balancer that keeps each client at its process hides nothing."""
    first, second = Trail(), Trail()
    first.step(OWNER, NOW)
    second.step(OWNER, NOW)  # where the session was accepted: read from the database
    second.step(THIEF, NOW + timedelta(seconds=1))
    told = second.news("default", "ses_1", NOW + timedelta(seconds=1))
    assert told is not None
    first.hear(told)
    levels = [first.level]
    assert first.step(OWNER, NOW + timedelta(seconds=2))
    assert [*levels, first.level] == [Level.LOW, Level.HIGH]


def test_what_is_stored_is_what_was_told() -> None:
    trail = Trail()
    trail.step(OWNER, NOW)
    trail.step(Spot("", "", "", None), NOW)
    stored = msgspec.json.decode(msgspec.json.encode(render_switches(tuple(trail.switches))))
    assert restore_switches(stored) == tuple(trail.switches)


SWITCHES = st.lists(st.tuples(st.sampled_from([OWNER, THIEF]), st.integers(0, 1_000)), max_size=6)


@given(st.lists(SWITCHES, min_size=1, max_size=4))
def test_whatever_processes_tell_the_worst_that_one_saw_stays(
    seen: list[list[tuple[Spot, int]]],
) -> None:
    known: TrailNote | None = None
    worst = Level.LOW
    for each in seen:
        trail = Trail()
        for spot, second in sorted(each, key=lambda step: step[1]):
            trail.step(spot, NOW + timedelta(seconds=second))
        worst = max(worst, trail.level)
        if trail.switches:
            known = both(known, note_of(trail))
    if known is not None:
        assert Level[known.level] >= worst
        assert len(known.switches) <= TRAIL_MAX
        assert list(known.switches) == sorted(known.switches, key=lambda step: step[1])
