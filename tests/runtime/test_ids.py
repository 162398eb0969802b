"""Ids: ascending where rows are appended, unguessable where they are part of a URL."""

from __future__ import annotations

import re
import time

import pytest

from runtime.ids import (
    PREFIXES,
    SECRET_PREFIXES,
    new_id,
    new_secret_id,
    new_token,
    new_ulid,
    ulid_from_ms,
    ulid_ms,
)

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def test_ids_ascend_within_one_process_however_fast_they_are_made() -> None:
    made = [new_id("sig") for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_ulid_carries_the_millisecond_of_its_making() -> None:
    before = time.time_ns() // 1_000_000
    made = new_ulid()
    after = time.time_ns() // 1_000_000
    assert ULID.fullmatch(made)
    assert before <= ulid_ms(made) <= after


@pytest.mark.parametrize("prefix", sorted(PREFIXES - SECRET_PREFIXES))
def test_an_id_is_its_prefix_and_a_ulid(prefix: str) -> None:
    kind, _, ulid = new_id(prefix).partition("_")
    assert kind == prefix
    assert ULID.fullmatch(ulid)


@pytest.mark.parametrize("prefix", ["", "user", "usr_", "USR"])
def test_an_unknown_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="unknown id prefix"):
        new_id(prefix)
    with pytest.raises(ValueError, match="unknown id prefix"):
        new_secret_id(prefix)


@pytest.mark.parametrize("prefix", sorted(SECRET_PREFIXES))
def test_an_id_that_is_part_of_an_intake_url_is_never_made_guessable(prefix: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        new_id(prefix)


def test_secret_ids_do_not_tell_when_they_were_made_nor_their_neighbours() -> None:
    made = [new_secret_id("prv") for _ in range(500)]
    bodies = [secret_id.removeprefix("prv_") for secret_id in made]
    assert len(set(made)) == len(made)
    assert all(ULID.fullmatch(body) for body in bodies)
    # A ULID's first six characters stay the same for a second; random ones practically never.
    assert len({body[:6] for body in bodies}) > 490


def test_a_token_has_256_random_bits_and_a_prefix_for_scanners() -> None:
    made = {new_token("shc") for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"shc_[A-Za-z0-9_-]{43}", token) for token in made)


def test_a_time_is_the_start_of_the_ulids_made_then() -> None:
    made = new_ulid()
    assert ulid_from_ms(ulid_ms(made)) <= made < ulid_from_ms(ulid_ms(made) + 1)
    assert ulid_ms(ulid_from_ms(1_772_469_300_000)) == 1_772_469_300_000
    assert ulid_from_ms(-5) == "0" * 26
    assert ulid_from_ms(1 << 60) == "7ZZZZZZZZZ" + "0" * 16
