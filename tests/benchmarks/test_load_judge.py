"""The judge of the load soak finds each fault in ledgers that have it, and none in good ones."""

from collections.abc import Iterable
from typing import Any

from benchmarks.load_judge import (
    FINDINGS_MAX,
    Cause,
    ReceiverVerdict,
    judge_inbox,
    judge_receiver,
)

WANTED = [Cause(1, 1), Cause(1, 2), Cause(2, 1)]


def judge(ledger: Iterable[dict[str, Any]], wanted: list[Cause]) -> ReceiverVerdict:
    published = {f"hub-{cause.txn}": cause for cause in [*WANTED, *wanted, Cause(2, 2)]}
    return judge_receiver("push-0", ledger, wanted, published)


def heard(cause: Cause, jti: str | None = None, *, known: bool = False) -> dict[str, Any]:
    return {
        "what": "set.received",
        "txn": f"hub-{cause.txn}",
        "request_id": jti or f"jti-{cause.txn}",
        "known": known,
    }


def test_a_good_ledger_has_no_findings_and_redeliveries_are_none() -> None:
    ledger = [
        *map(heard, WANTED),
        heard(WANTED[0], known=True),
        {"what": "poll.acked", "acks": []},
        {"what": "set.received", "txn": "of somebody else", "request_id": "x"},
    ]
    verdict = judge(ledger, WANTED)
    assert verdict.received == 3
    assert verdict.redelivered == 1
    assert set(verdict.counts.values()) == {0}


def test_a_cause_that_nobody_acknowledged_may_be_there() -> None:
    verdict = judge([*map(heard, WANTED), heard(Cause(2, 2))], WANTED)
    assert set(verdict.counts.values()) == {0}


def test_what_is_missing_is_lost() -> None:
    verdict = judge(map(heard, WANTED[:2]), WANTED)
    assert verdict.lost == ["push-0 never got c-2-1"]


def test_one_cause_with_two_jtis_is_doubled() -> None:
    ledger = [*map(heard, WANTED), heard(WANTED[0], "another")]
    assert judge(ledger, WANTED).counts["doubled"] == 1


def test_a_later_number_before_an_earlier_one_is_out_of_order() -> None:
    verdict = judge(map(heard, [WANTED[1], WANTED[0], WANTED[2]]), WANTED)
    assert verdict.disordered == ["push-0 got c-1-1 after number 2"]


def test_a_refusal_by_a_receiver_is_a_finding() -> None:
    ledger = [*map(heard, WANTED), {"what": "set.refused", "err": "invalid_key"}]
    assert judge(ledger, WANTED).counts["refused"] == 1


def test_many_findings_are_counted_and_some_are_shown() -> None:
    many = [Cause(number, 1) for number in range(100)]
    verdict = judge([], many)
    assert verdict.counts["lost"] == 100
    assert len(verdict.lost) == FINDINGS_MAX + 1


def test_the_inbox_must_hold_and_finish_what_was_acknowledged() -> None:
    assert judge_inbox({"a": "assessed", "b": "assessed"}, {"a"}) == []
    assert judge_inbox({"a": "received"}, {"a", "b"}) == [
        "the hub acknowledged b and does not have it",
        "a ended as received",
    ]
