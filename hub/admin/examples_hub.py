"""The answers of `examples` for kinds of the hub itself: tenants, keys, audit."""

from __future__ import annotations

from typing import Any, Final

OF_THE_HUB: Final[dict[str, dict[str, Any]]] = {
    "tenants": {
        "id": "green",
        "name": "Green GmbH",
        "issuer": "https://hub.customer.example/t/green",
        "status": "active",
        "default_subjects": "ALL",
        "reset_on_universal_logout": False,
        "created_at": "2026-03-02T16:35:00Z",
        "admin_token": "shc_shown-once",
    },
    "keys": {
        "id": "set-01kjq2m8v0zc4t9w6yr0qxn1eb",
        "purpose": "set",
        "alg": "RS256",
        "state": "current",
        "public_jwk": {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": "set-01kjq2m8v0zc4t9w6yr0qxn1eb",
            "n": "wY3rwaWjOyjJW66xka1aH9VZ3HEu6rM01EL6gfoHt5qQQkrYu7",
            "e": "AQAB",
        },
        "created_at": "2026-03-02T16:35:00Z",
        "changed_at": "2026-03-02T16:35:00Z",
    },
    "behaviours": {
        "id": "bhv_01KJQ2M8904ZC4T9W6YR0QXN1E",
        "name": "Far away",
        "type": "ANOMALOUS_LOCATION",
        "status": "ACTIVE",
        "settings": {
            "maxEventsUsedForEvaluation": 50,
            "minEventsNeededForEvaluation": 3,
            "radiusKilometers": 500.0,
            "granularity": "LAT_LONG",
        },
        "built_in": False,
        "created": "2026-03-02T16:35:00Z",
        "lastUpdated": "2026-03-02T16:35:00Z",
    },
    "audit": {
        "id": "1",
        "audit_id": "aud_01KJQ2M8518ZC4T9W6YR0QXN1E",
        "number": 1,
        "at": "2026-03-02T16:35:00Z",
        "actor": "cli_01KJQ2M8719ZC4T9W6YR0QXN1E",
        "action": "app.create",
        "ref": "app_01KJQ2M8502ZC4T9W6YR0QXN1E",
        "detail": {
            "name": "payroll",
            "kind": "rp",
            "sensitivity": 80,
            "subject_formats": ["email"],
            "logout": [
                {
                    "method": "gtr",
                    "endpoint_url": "https://payroll.customer.example/global-token-revocation",
                }
            ],
        },
        "previous_hash": "0000000000000000000000000000000000000000000000000000000000000000",
        "entry_hash": "9a533b4b555aed254ee9cae39cd77485a344f8d6a7c2dcb47661ef0db875039f",
    },
}
