"""One answer of each kind of the relay and of the guards, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "attribute-rules": {
        "id": "atr_01KJQ2M8A04ZC4T9W6YR0QXN1E",
        "name": "owners read their reports",
        "resource_types": ["report"],
        "effect": "permit",
        "expression": "action.name == 'read' && resource.properties.owner == subject.id",
        "created_at": "2026-03-02T16:35:00Z",
    },
    "break-glass": {
        "id": "bgl_01KJQ2M8904ZC4T9W6YR0QXN1E",
        "user": "email:admin@customer.example",
        "reason": "the last administrator",
        "added_at": "2026-03-02T16:35:00Z",
    },
    "relays": {
        "id": "rly_01KJQ2M8X20ZC4T9W6YR0QXN1E",
        "name": "device posture to all apps",
        "position": 10,
        "providers": None,
        "event_types": [
            "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"
        ],
        "streams": None,
        "apps": None,
        "unresolved": "hold",
        "mode": "enforce",
        "to_provider": False,
        "created_at": "2026-03-02T16:35:00Z",
        "updated_at": "2026-03-02T16:35:00Z",
    },
    "relayed": {
        "id": "sig_01KJQ2M8T13ZC4T9W6YR0QXN1E:rly_01KJQ2M8X20ZC4T9W6YR0QXN1E",
        "signal_id": "sig_01KJQ2M8T13ZC4T9W6YR0QXN1E",
        "rule_id": "rly_01KJQ2M8X20ZC4T9W6YR0QXN1E",
        "outcome": "relayed",
        "upstream_iss": "https://mdm.vendor.example",
        "upstream_jti": "01KJQ2M915ZC4T9W6YR0QXN1EB",
        "upstream_txn": "txn-1",
        "txn": "txn_c2hvd24gYXMgZXhhbXBsZQ",
        "streams": ["str_01KJQ2M8D06ZC4T9W6YR0QXN1E"],
        "at": "2026-03-02T16:35:00Z",
    },
}
