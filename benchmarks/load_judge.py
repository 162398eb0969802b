"""What the ledgers of a load soak prove: pure, so that its verdicts are tested without a hub.

Every consequential SET is a cause: number so and so about a subject, with numbers that rise per
subject. What the hub publishes because of it carries one `txn`, which the hub derives from the
cause's (`hub.relay.model.own_txn`). So each receiver's ledger must hold every acknowledged cause,
each with one `jti`, and for each subject in rising order. A `jti` that comes again is a redelivery,
which at-least-once allows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import msgspec

CAUSE_PREFIX: Final = "c-"
FINDINGS_MAX: Final = 20


class Cause(msgspec.Struct, frozen=True):
    """Why a receiver hears something: SET `number` about `subject`."""

    subject: int
    number: int

    @property
    def txn(self) -> str:
        """The `txn` it is sent with."""
        return f"{CAUSE_PREFIX}{self.subject}-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverVerdict:
    """What one receiver's ledger shows.

    received, redelivered: causes. Each finding is a sentence, at most FINDINGS_MAX of a kind are
    kept; counts: how many there are of each kind.
    """

    received: int
    redelivered: int
    counts: dict[str, int]
    lost: list[str]
    doubled: list[str]
    disordered: list[str]
    refused: list[str]


def judge_receiver(
    name: str,
    entries: Iterable[Mapping[str, Any]],
    acknowledged: Collection[Cause],
    published: Mapping[str, Cause],
) -> ReceiverVerdict:
    """Compare one receiver's ledger, oldest entry first, with what the hub acknowledged.

    A cause that nobody acknowledged may be there or not: its answer may have been on its way when
    the run ended. published: `txn` of the hub to the cause. Raises nothing.
    """
    jti_of: dict[Cause, str] = {}
    latest: dict[int, int] = {}
    redelivered = 0
    doubled: list[str] = []
    disordered: list[str] = []
    refused: list[str] = []
    for entry in entries:
        if entry["what"] == "set.refused":
            refused.append(f"{name} refused a SET: {entry.get('err')}, {entry.get('detail')}")
        cause = published.get(str(entry.get("txn"))) if entry["what"] == "set.received" else None
        if cause is None:
            continue
        jti = str(entry["request_id"])
        known = jti_of.setdefault(cause, jti)
        if known != jti:
            doubled.append(f"{name} got {cause.txn} as {known} and as {jti}")
        elif entry.get("known"):
            redelivered += 1
        elif latest.get(cause.subject, 0) >= cause.number:
            disordered.append(f"{name} got {cause.txn} after number {latest[cause.subject]}")
        latest[cause.subject] = max(cause.number, latest.get(cause.subject, 0))
    lost = [f"{name} never got {cause.txn}" for cause in acknowledged if cause not in jti_of]
    return ReceiverVerdict(
        received=len(jti_of),
        redelivered=redelivered,
        counts={
            "lost": len(lost),
            "doubled": len(doubled),
            "disordered": len(disordered),
            "refused": len(refused),
        },
        lost=_some(lost),
        doubled=_some(doubled),
        disordered=_some(disordered),
        refused=_some(refused),
    )


def judge_inbox(stored: Mapping[str, str], acknowledged: AbstractSet[str]) -> list[str]:
    """Return what is wrong with the hub's inbox. stored: jti to the state of its signal.

    Every acknowledged SET is there, and the pipeline has brought every stored one to an end.
    """
    lost = [
        f"the hub acknowledged {jti} and does not have it" for jti in acknowledged - stored.keys()
    ]
    stuck = [f"{jti} ended as {state}" for jti, state in stored.items() if state != "assessed"]
    return _some(sorted(lost)) + _some(sorted(stuck))


def _some(findings: list[str]) -> list[str]:
    """Return the first findings, and how many more there are."""
    left = len(findings) - FINDINGS_MAX
    return findings if left <= 0 else [*findings[:FINDINGS_MAX], f"and {left} more like it"]
