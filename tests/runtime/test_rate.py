"""Token buckets: a burst, then a rate; bounded in memory."""

from __future__ import annotations

import pytest

from runtime.rate import TokenBuckets


def test_a_burst_passes_then_the_rate_holds() -> None:
    buckets = TokenBuckets(per_s=2.0, burst=3.0)

    assert [buckets.take("a", 10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 10.0) == pytest.approx(0.5)
    assert buckets.wait_s("a", 10.25) == pytest.approx(0.25)
    assert buckets.take("a", 10.5) == 0.0
    assert buckets.take("a", 10.5) > 0
    assert [buckets.take("a", 1000.0) for _ in range(4)].count(0.0) == 3


def test_each_name_has_its_own_and_looking_takes_nothing() -> None:
    buckets = TokenBuckets(per_s=1.0, burst=1.0)

    assert buckets.wait_s("a", 0.0) == 0.0
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 0.0) > 0


def test_a_clock_set_back_refills_nothing() -> None:
    buckets = TokenBuckets(per_s=1.0, burst=1.0)

    assert buckets.take("a", 100.0) == 0.0
    assert buckets.take("a", 50.0) == pytest.approx(1.0)
    assert buckets.take("a", 51.0) == 0.0


def test_only_so_many_names_are_remembered() -> None:
    buckets = TokenBuckets(per_s=1.0, burst=1.0, names_max=2)

    for name in ("a", "b", "c"):
        assert buckets.take(name, 0.0) == 0.0

    assert buckets.take("c", 0.0) > 0
    assert buckets.take("a", 0.0) == 0.0


def test_what_costs_more_takes_more() -> None:
    buckets = TokenBuckets(per_s=1.0, burst=2.0)

    assert [buckets.take("a", 0.0, cost=0.5) for _ in range(4)] == [0.0] * 4
    assert buckets.take("a", 0.25, cost=0.5) == pytest.approx(0.25)
    assert buckets.take("a", 0.5, cost=0.5) == 0.0
