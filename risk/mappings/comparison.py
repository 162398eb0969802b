"""What other mappings would make of the same signals: the pure part of a dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from risk.drafts import ClearanceDraft, DetectionDraft, Draft, PostureDraft, SessionEndDraft
from risk.mapping import CompiledMappings, read
from risk.model import Level, Signal, SignalMode

#: changed signals that are told one by one; beyond it they are only counted
CHANGES_SHOWN_MAX: Final = 200


@dataclass(slots=True)
class Comparison:
    """What differs so far. now, then: what is said by the present and by the proposed mappings.

    changes: the newest changed signals, one entry each.
    """

    present: CompiledMappings
    proposed: CompiledMappings
    signals: int = 0
    changed: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    now: Counter[str] = field(default_factory=Counter)
    then: Counter[str] = field(default_factory=Counter)

    def add(self, signal: Signal) -> None:
        """Read one signal both ways. Raises nothing."""
        self.signals += 1
        now = _said(signal, self.present)
        then = _said(signal, self.proposed)
        self.now.update(map(_counted, now))
        self.then.update(map(_counted, then))
        if now == then:
            return
        self.changed += 1
        if len(self.changes) < CHANGES_SHOWN_MAX:
            self.changes.append(
                {
                    "signal_id": signal.signal_id,
                    "iss": signal.iss,
                    "event_type": signal.event.type_uri,
                    "received_at": signal.received_at,
                    "mode": signal.mode.value,
                    "now": now,
                    "then": then,
                }
            )


def _said(signal: Signal, mappings: CompiledMappings) -> list[dict[str, Any]]:
    if signal.mode is SignalMode.NONE:
        return []
    reading = read(signal, mappings)
    return [_told(each, signal.level_cap, reading.stands_for) for each in reading.drafts]


def _told(draft: Draft, cap: Level | None, stands_for: str) -> dict[str, Any]:
    """Tell an effect as a mapping writes it; the level is what the provider's cap leaves of it."""
    told: dict[str, Any]
    if isinstance(draft, DetectionDraft):
        level = draft.level if cap is None else min(draft.level, cap)
        told = {
            "do": "raise",
            "detection": draft.name,
            "about": draft.kind.value,
            "level": level.name,
            "confidence": draft.confidence,
            "reason": draft.reason,
            "clears_on": list(draft.clears_on),
        }
    elif isinstance(draft, ClearanceDraft):
        told = {
            "do": "clear",
            "remedy": draft.remedy,
            "about": draft.kind.value,
            "keep": None if draft.level is None else draft.level.name,
        }
    elif isinstance(draft, PostureDraft):
        told = {"do": "report_posture", "signals": dict(draft.signals), "old": dict(draft.old)}
    else:
        told = {"do": "end_sessions" if isinstance(draft, SessionEndDraft) else "see_session"}
    return told | {"subject": stands_for}


def _counted(told: dict[str, Any]) -> str:
    words: Iterable[Any] = (
        told["do"],
        told.get("detection"),
        told.get("remedy"),
        told.get("level"),
    )
    return " ".join(word for word in words if word)
