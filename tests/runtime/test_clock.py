"""The clock: aware UTC always, and moved by tests only in development mode."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import (
    CLOCK_FILE_VARIABLE,
    FixedClock,
    ShiftedClock,
    SystemClock,
    epoch_s,
    from_epoch_s,
    system_clock,
)
from tests.runtime.background import LIMIT_S

HOUR = timedelta(hours=1)


@pytest.fixture
def clock_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "offset"
    before = os.environ.get(CLOCK_FILE_VARIABLE)
    os.environ[CLOCK_FILE_VARIABLE] = str(path)
    yield path
    if before is None:
        del os.environ[CLOCK_FILE_VARIABLE]
    else:
        os.environ[CLOCK_FILE_VARIABLE] = before


def _shift(path: Path) -> timedelta:
    return ShiftedClock(path).now() - SystemClock().now()


def test_the_system_clock_is_aware_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_the_offset_in_the_file_moves_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "offset"
    path.write_text("3600\n")
    assert timedelta(minutes=59) < _shift(path) < timedelta(minutes=61)


def test_a_running_clock_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "offset"
    clock = ShiftedClock(path)
    assert abs(clock.now() - SystemClock().now()) < HOUR
    path.write_text("-7200.5")
    give_up_at = time.monotonic() + LIMIT_S
    while clock.now() - SystemClock().now() > -HOUR:
        assert time.monotonic() < give_up_at


@pytest.mark.parametrize(
    "content",
    [b"", b"soon", b"nan", b"inf", b"-inf", b"1e300", b"99999999999999", b"\xff\xfe", b"1 2"],
)
def test_a_broken_file_means_no_offset(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "offset"
    path.write_bytes(content)
    assert abs(_shift(path)) < HOUR


def test_a_missing_file_means_no_offset(tmp_path: Path) -> None:
    assert abs(_shift(tmp_path / "absent")) < HOUR


def test_in_development_mode_the_process_clock_is_the_shifted_one(clock_file: Path) -> None:
    clock_file.write_text("7200")
    assert system_clock(dev_insecure=True).now() - SystemClock().now() > HOUR


def test_outside_development_mode_the_file_is_ignored(clock_file: Path) -> None:
    clock_file.write_text("7200")
    assert abs(system_clock(dev_insecure=False).now() - SystemClock().now()) < HOUR


def test_a_fixed_clock_moves_only_when_told() -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    assert clock.now() == clock.now()
    clock.advance(90)
    assert clock.now() == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)


def test_issued_at_is_never_in_the_future() -> None:
    assert epoch_s(datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)) == 1_767_225_600


@given(st.integers(min_value=0, max_value=253_402_300_799))
def test_seconds_survive_the_way_to_a_moment_and_back(seconds: int) -> None:
    moment = from_epoch_s(seconds)
    assert moment.tzinfo is UTC
    assert epoch_s(moment) == seconds
