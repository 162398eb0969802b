"""The example of the policies: a request that works as it stands, and its answer."""

from __future__ import annotations

from typing import Any, Final

POLICY_EXAMPLE: Final[dict[str, Any]] = {
    "type": "app_sign_in",
    "name": "strict apps",
    "apps": [],
    "mode": "monitor",
    "fallback": "STEP_UP",
    "rules": [
        {
            "name": "new-network",
            "priority": 10,
            "when": {"changes": {"include": ["asn", "country"]}},
            "then": {"decision": "STEP_UP", "acr": "phr", "max_age": 0},
        },
        {
            "name": "unmanaged-abroad",
            "priority": 20,
            "when": {
                "posture": {"exclude": {"managed": ["true"]}},
                "expression": "country != '' && country != 'DE'",
            },
            "then": {"decision": "DENY", "alert": True},
        },
    ],
}

POLICY_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "policies": {
        "id": "pol_01KJQ2M8703ZC4T9W6YR0QXN1E",
        **POLICY_EXAMPLE,
        "rules": [
            *POLICY_EXAMPLE["rules"],
            {
                "name": "catch-all",
                "priority": 99,
                "when": {},
                "then": {"decision": "ALLOW", "log": True},
            },
        ],
        "detection": None,
        "enforcement": None,
        "version": 1,
        "skipped": [],
        "warnings": ["it names no app, so it never applies"],
    },
}
