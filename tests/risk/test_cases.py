"""The decision corpus: what a log of signals leads to, whatever the order it arrives in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, permutations
from pathlib import Path
from typing import Any

import pytest

from risk import assessment, placement
from risk.assessment import Judgement, UserFacts
from risk.entities.model import Link, LinkKind
from risk.model import Clearance, Detection, DetectionState, EntityKind, Level, Signal, SignalMode
from risk.placement import Known
from risk.policy import STANDARD_RULES, Policy, PolicyMode
from tests.risk.kit import LAPTOP, MDM, NOW, PHONE, TENANT, TINA, hours, pair, signal

LATER = NOW + timedelta(days=3)
ABOUT = {
    "tina": TINA,
    "laptop": LAPTOP,
    "tina+laptop": pair(TINA, LAPTOP),
    "tina+phone": pair(TINA, PHONE),
}
KNOWN = Known(
    entities={
        (EntityKind.USER, "email:tina@customer.example"): "usr_tina",
        (EntityKind.DEVICE, "opaque:LT-1"): "dev_laptop",
        (EntityKind.DEVICE, "opaque:PH-1"): "dev_phone",
    },
    sessions={},
)
LINKS = tuple(
    Link(
        tenant_id=TENANT,
        device_id=device_id,
        user_id="usr_tina",
        kind=LinkKind.OWNER,
        source="admin",
        since=NOW - timedelta(days=90),
        until=None,
    )
    for device_id in ("dev_laptop", "dev_phone")
)
POLICY = Policy(mode=PolicyMode.ENFORCE, rules=STANDARD_RULES)


@dataclass
class Log:
    """What the store would hold after some signals, kept in memory."""

    detections: dict[str, Detection] = field(default_factory=dict)
    clearances: list[Clearance] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=count)

    def take(self, some: Signal) -> None:
        placed = placement.place(placement.draft(some), KNOWN)
        found = assessment.findings(placed, new_id=lambda: f"det_{next(self.ids):03}", now=LATER)
        self.clearances += assessment.remedies(placed)
        stored = [each for each in self.detections.values() if each.state is DetectionState.ACTIVE]
        _, appended = assessment.record(
            stored, found, assessment.by_entity(self.clearances), now=LATER
        )
        self.detections |= {each.detection_id: each for each in appended}

    def judge(self, caps: dict[str, Level]) -> Judgement:
        active = [each for each in self.detections.values() if each.state is DetectionState.ACTIVE]
        evidence = assessment.evidence_of("usr_tina", LINKS, assessment.by_subject(active))
        facts = UserFacts(user_id="usr_tina", evidence=evidence, pin=None, groups=(), caps=caps)
        return assessment.judge(facts, POLICY, now=LATER)


def read_cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}: {case['name']}")
        for path in sorted((Path(__file__).parent / "cases").glob("*.json"))
        for case in json.loads(path.read_text())
    ]


def read_signal(event: dict[str, Any], position: int) -> Signal:
    return signal(
        event["type"],
        event["payload"],
        about=ABOUT[event.get("about", "tina")],
        iss=event.get("iss", MDM),
        at=NOW + hours(event["at_h"]),
        source_class=event.get("source_class", "partner"),
        mode=SignalMode(event.get("mode", "enforce")),
        signal_id=f"sig_{position}",
        received_at=LATER,
    )


@pytest.mark.requirement("SET-18")
@pytest.mark.parametrize("case", read_cases())
def test_a_log_leads_to_the_stated_level_in_any_order_of_arrival(case: dict[str, Any]) -> None:
    signals = [read_signal(event, position) for position, event in enumerate(case["events"])]
    caps = {issuer: Level[name] for issuer, name in case.get("caps", {}).items()}
    expected = case["expect"]
    for order in permutations(signals):
        log = Log()
        for each in order:
            log.take(each)
        judged = log.judge(caps)
        assert {
            "level": judged.result.level.name,
            "causes": sorted(cause.name for cause in judged.causes),
            "actions": sorted(judged.decision.actions),
        } == expected, [each.signal_id for each in order]


@pytest.mark.parametrize("case", read_cases())
def test_taking_every_signal_twice_changes_nothing(case: dict[str, Any]) -> None:
    signals = [read_signal(event, position) for position, event in enumerate(case["events"])]
    caps = {issuer: Level[name] for issuer, name in case.get("caps", {}).items()}
    once, twice = Log(), Log()
    for each in signals:
        once.take(each)
    for each in (*signals, *signals):
        twice.take(each)
    assert twice.judge(caps).result.level is once.judge(caps).result.level
    assert twice.judge(caps).result.score == once.judge(caps).result.score
