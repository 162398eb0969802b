"""One answer of each kind about addresses, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

NETWORK_ANSWERS: Final[dict[str, dict[str, Any]]] = {
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
