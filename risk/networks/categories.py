"""Categories of addresses: vendors' names, what they mean, and the groups they imply. Pure data.

Feeds speak of themselves in their own words; the readers turn them into these. A name that ends in
`_VPN` or `_PROXY` is a service of that kind also when it is not listed here, so a vendor's new
service needs no new release.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final

ALL_IP_SERVICES: Final = "ALL_IP_SERVICES"
ALL_PROXIES_VPNS: Final = "ALL_PROXIES_VPNS"
ALL_ANONYMIZERS: Final = "ALL_ANONYMIZERS"
ALL_EXCEPT_TOR: Final = "ALL_ANONYMIZERS_EXCEPT_TOR"
TOR: Final = "ANONYMIZER_TOR"
VPN: Final = "VPN"
ENTERPRISE_VPN: Final = "ENTERPRISE_VPN"
PROXY: Final = "PROXY"
RESIDENTIAL_PROXY: Final = "RESIDENTIAL_PROXY"
ICLOUD_RELAY: Final = "APPLE_ICLOUD_RELAY_PROXY"
PRIVACY_RELAY: Final = "PRIVACY_RELAY_PROXY"
HOSTING: Final = "HOSTING"
CDN: Final = "CDN"
MOBILE: Final = "MOBILE"
SATELLITE: Final = "SATELLITE"
EDUCATION: Final = "EDUCATION"
CRAWLER: Final = "CRAWLER"
#: what implies others; no feed has to claim them
GROUPS: Final = frozenset({ALL_IP_SERVICES, ALL_PROXIES_VPNS, ALL_ANONYMIZERS, ALL_EXCEPT_TOR})
#: names kept with their groups; there are some hundreds at most
_NAMES_HELD: Final = 4_096
NAME: Final = re.compile(r"[A-Z0-9][A-Z0-9_]{0,63}")
#: what an address is used for, which hides nobody
_PLAIN: Final = frozenset({HOSTING, CDN, MOBILE, SATELLITE, EDUCATION, CRAWLER})
#: services of companies for their own people: they hide nobody from the company
_ENTERPRISE: Final = frozenset(
    {
        ENTERPRISE_VPN,
        "GLOBALPROTECT_VPN",
        "GOOGLE_VPN",
        "SYMANTEC_VPN",
        "TRENDMICRO_VPN",
        "VIGOR_SSL_VPN",
    }
)
#: services whose proxies are other people's homes and telephones
_RESIDENTIAL: Final = frozenset(
    f"{name}_PROXY"
    for name in (
        "ABCPROXY", "BIGMAMA", "DATAIMPULSE", "FACELESS", "FROXY", "GEONODE", "IPCOLA", "IPIDEA",
        "IPROXYSHOP", "LUMINATI", "NETNUT", "NEXUS", "OCULUS", "OXYLABS", "PROXYRACK",
        "SPACEPROXIES", "YILU",
    )
)  # fmt: skip
#: services by name that zones of other products know, for documents and hints
SERVICES: Final = _RESIDENTIAL | _ENTERPRISE | frozenset(
    f"{name}_VPN"
    for name in (
        "ASTRILL", "AVAST", "CYBERGHOST", "EXPRESS", "MULLVAD", "NORD", "PIA", "SAMSUNG",
        "SURFSHARK", "ULTRASURF", "WARP",
    )
) | {ICLOUD_RELAY, PRIVACY_RELAY, "PROXYLINE_PROXY"}  # fmt: skip
#: every name that means something here
KNOWN: Final = GROUPS | SERVICES | _PLAIN | {TOR, VPN, PROXY, RESIDENTIAL_PROXY}


@functools.lru_cache(maxsize=_NAMES_HELD)
def implied(name: str) -> frozenset[str]:
    """Return a category and all that it implies; an unknown name implies itself. Raises nothing."""
    if name == TOR:
        return frozenset({TOR, ALL_ANONYMIZERS, ALL_IP_SERVICES})
    if name == ALL_ANONYMIZERS:
        # A feed may know that it is one, and not which.
        return frozenset({ALL_ANONYMIZERS, ALL_IP_SERVICES})
    if name in _RESIDENTIAL:
        return frozenset({name}) | implied(RESIDENTIAL_PROXY)
    if name in _ENTERPRISE:
        return frozenset({name, VPN, ALL_PROXIES_VPNS, ALL_IP_SERVICES})
    if name == VPN or name.endswith("_VPN"):
        kind = VPN
    elif name == PROXY or name.endswith("_PROXY"):
        kind = PROXY
    else:
        return frozenset({name})
    return frozenset(
        {name, kind, ALL_PROXIES_VPNS, ALL_ANONYMIZERS, ALL_EXCEPT_TOR, ALL_IP_SERVICES}
    )


def with_groups(names: Iterable[str]) -> frozenset[str]:
    """Return categories with all that they imply. Raises nothing."""
    found: set[str] = set()
    for name in names:
        found |= implied(name)
    return frozenset(found)


#: names that do not become ours by their letters alone
_ALIASES: Final = {
    "PRIVATEINTERNETACCESS": "PIA",
    "CLOUDFLAREWARP": "WARP",
    "BRIGHTDATA": "LUMINATI",
}


def service(name: str, kind: str) -> str | None:
    """Return the category of a service by its trade name: NordVPN is NORD_VPN. None: no name.

    kind: VPN or PROXY, when the name does not tell. Raises nothing.
    """
    upper = name.upper().strip()
    if NAME.fullmatch(upper) and upper.endswith(("_VPN", "_PROXY")):
        return upper
    letters = "".join(each for each in upper if each.isascii() and each.isalnum())
    for ending in (VPN, PROXY):
        if letters.endswith(ending) and letters != ending:
            letters, kind = letters.removesuffix(ending), ending
    letters = _ALIASES.get(letters, letters)
    found = f"{letters}_{kind}"
    return found if letters and NAME.fullmatch(found) else None
