"""The score: it ranks, fades, learns, and its terms add up to it."""

from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.model import Detection, Level
from risk.ranking import HALF_LIFE, PRIOR_LOG_ODDS, Reliability, claimed_score, rank
from tests.risk.kit import EDR, MDM, NOW, detection, hours

ISSUERS = (MDM, EDR, "https://casb.vendor.example")
levels = st.sampled_from(Level)
reliabilities = st.builds(Reliability, confirmed=st.integers(0, 500), false=st.integers(0, 500))


@st.composite
def counted(draw: st.DrawFn) -> tuple[Detection, Level]:
    found = detection(
        detection_id=f"det_{draw(st.integers(0, 10**9))}",
        source_class=draw(st.sampled_from(("network", "session", "device"))),
        issuer=draw(st.sampled_from(ISSUERS)),
        confidence=draw(st.floats(0, 1)),
        name=draw(st.sampled_from(("partner_reported_risk", "device_compromised"))),
        at=NOW - hours(draw(st.integers(0, 2_000))),
    )
    return found, draw(levels)


many = st.lists(counted(), max_size=6, unique_by=lambda each: each[0].detection_id)
trust = st.dictionaries(st.sampled_from(ISSUERS), reliabilities)


@given(many, trust)
def test_the_terms_that_count_and_the_prior_add_up_to_the_score(
    some: list[tuple[Detection, Level]], by_issuer: dict[str, Reliability]
) -> None:
    ranking = rank(some, reliability=by_issuer, now=NOW)
    total = math.fsum([ranking.prior, *(each.points for each in ranking.terms if each.counts)])
    assert ranking.score == round(total, 3)
    counting = [each.source_class for each in ranking.terms if each.counts]
    assert len(counting) == len(set(counting)) == len({each[0].source_class for each in some})


@given(many, trust, st.randoms(use_true_random=False))
def test_order_does_not_matter(
    some: list[tuple[Detection, Level]],
    by_issuer: dict[str, Reliability],
    shuffler: random.Random,
) -> None:
    before = rank(some, reliability=by_issuer, now=NOW)
    shuffler.shuffle(some)
    assert rank(some, reliability=by_issuer, now=NOW) == before


@given(many, counted(), trust)
def test_more_evidence_never_ranks_lower(
    some: list[tuple[Detection, Level]],
    more: tuple[Detection, Level],
    by_issuer: dict[str, Reliability],
) -> None:
    with_more = rank([*some, more], reliability=by_issuer, now=NOW)
    assert with_more.score >= rank(some, reliability=by_issuer, now=NOW).score


@given(many, trust, st.integers(0, 1_000))
def test_evidence_fades_and_never_grows(
    some: list[tuple[Detection, Level]], by_issuer: dict[str, Reliability], days: int
) -> None:
    later = rank(some, reliability=by_issuer, now=NOW + timedelta(days=days))
    assert later.score <= rank(some, reliability=by_issuer, now=NOW).score


@given(many)
def test_the_quick_score_is_that_of_issuers_nobody_judged(
    some: list[tuple[Detection, Level]],
) -> None:
    assert claimed_score(some, NOW) == rank(some, reliability={}, now=NOW).score


@given(reliabilities)
def test_a_false_finding_lowers_and_a_confirmed_one_raises_the_weight(said: Reliability) -> None:
    worse = Reliability(confirmed=said.confirmed, false=said.false + 1)
    better = Reliability(confirmed=said.confirmed + 1, false=said.false)
    assert 0 <= worse.weight < said.weight < better.weight


def test_nobody_judged_means_as_claimed() -> None:
    assert Reliability().weight == 1.0
    assert Reliability(confirmed=5, false=5).weight == 1.0
    assert Reliability(false=10_000).weight < 0.1


@pytest.mark.parametrize("level", list(Level))
def test_after_a_half_life_half_is_left(level: Level) -> None:
    fresh, old = detection(), detection(at=NOW - HALF_LIFE[level])
    whole = rank([(fresh, level)], reliability={}, now=NOW).terms[0].points
    half = rank([(old, level)], reliability={}, now=NOW).terms[0].points
    assert half == pytest.approx(whole / 2, abs=0.001)


def test_without_evidence_the_score_is_the_prior() -> None:
    assert rank([], reliability={}, now=NOW).score == round(PRIOR_LOG_ODDS, 3)
