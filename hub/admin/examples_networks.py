"""One answer of each kind about addresses, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

NETWORK_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "feeds": {
        "id": "fed_01KJQ2M8904ZC4T9W6YR0QXN1E",
        "name": "tor",
        "file": "tor-exits.txt",
        "format": "prefixes",
        "categories": ["ANONYMIZER_TOR"],
        "position": 100,
        "stale_after_s": 2_592_000,
        "stale": "last",
        "decay_s": 0,
        "shrink_max": 0.5,
        "outcome": "accepted",
        "reason": None,
        "looked_at": "2026-03-02T16:35:00Z",
        "prefixes": 1_312,
        "built_at": "2026-03-02T16:00:00Z",
    },
    "zones": {
        "id": "zon_01KJQ2M8904ZC4T9W6YR0QXN1E",
        "name": "anonymizers, except our VPN",
        "type": "DYNAMIC_V2",
        "usage": "BLOCKLIST",
        "status": "ACTIVE",
        "system": False,
        "useAsExemptList": False,
        "gateways": [],
        "proxies": [],
        "asns": {"include": [], "exclude": []},
        "locations": {"include": [], "exclude": []},
        "ipServiceCategories": {"include": ["ALL_ANONYMIZERS"], "exclude": ["NORD_VPN"]},
        "proxyType": None,
    },
}
