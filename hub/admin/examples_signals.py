"""Answers about what signals mean and which did not come in, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

SIGNAL_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "mappings": {
        "id": "map_01KJQ2M8804ZC4T9W6YR0QXN1E",
        "source": "tenant",
        "in_force": True,
        "name": "Infected by the example MDM",
        "event_type": "https://mdm.vendor.example/event-type/threat",
        "then_defaults": False,
        "rules": [
            {
                "when": [{"member": "/threat/score", "op": "gte", "value": 70}],
                "then": [
                    {
                        "do": "raise",
                        "detection": "x_mdm_threat",
                        "about": "device",
                        "level": "HIGH",
                        "confidence": 0.9,
                        "reason": "Threat {/threat/name}",
                        "clears_on": ["device_healthy"],
                    }
                ],
                "subject": "device",
            }
        ],
        "version": 1,
        "created_at": "2026-03-02T16:35:00Z",
        "updated_at": "2026-03-02T16:35:00Z",
    },
    "ingest-errors": {
        "id": "ing_01KJQ2M8805ZC4T9W6YR0QXN1E",
        "kind": "refused",
        "provider_id": "prv_01KJQ2M8301ZC4T9W6YR0QXN1E",
        "code": "invalid_audience",
        "requirement": "SET-54",
        "reason": "aud does not name this receiver",
        "jti": "01KJQ2M8806ZC4T9W6YR0QXN1E",
        "event_type": "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
        "peer": "203.0.113.7",
        "size_bytes": 912,
        "replayable": True,
        "state": "open",
        "attempts": 0,
        "at": "2026-03-02T16:35:00Z",
        "tried_at": None,
    },
}
