"""Questions in AuthZEN that several tests ask."""

from __future__ import annotations

from typing import Any

EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"


def question(
    sid: str = "sid-rosa", *, kind: str = "session", context: Any = None, **resource: Any
) -> dict[str, Any]:
    """Return whether a session may use an app."""
    asked: dict[str, Any] = {
        "subject": {"type": kind, "id": sid},
        "action": {"name": "access"},
        "resource": {"type": "page", "id": "1", **resource},
    }
    return asked if context is None else {**asked, "context": context}
