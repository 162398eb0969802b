"""How an app is guarded at a gateway: its session cookies, its addresses, what follows a no. Pure.

Source: standards §19; requirements FWA-22, FWA-31, FWA-33 to FWA-35, FWA-41.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

COOKIES_MAX: Final = 8
ORIGINS_MAX: Final = 16
URL_CHARACTERS_MAX: Final = 2_000
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_PARAMETER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")


class Fallback(StrEnum):
    """What a gateway is told when the hub cannot decide. ERROR: 503 where the gateway decides."""

    DENY = "deny"
    ALLOW = "allow"
    ERROR = "error"


class UnknownSession(StrEnum):
    """What happens to requests without a session that the hub knows."""

    DENY = "deny"
    ALLOW = "allow"


class SessionHeader(StrEnum):
    """Whether a gateway's `X-Signalhub-Session` is believed."""

    IGNORED = "ignored"
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardAuthSetting:
    """How an app is guarded at a gateway.

    cookies: names of those that hold its session. origins: where it is served, `https://host`;
    return addresses lie below one of them. sign_in_url, sign_out_url, step_up_url: where browsers
    are sent; an IdP's own are used for apps that have none. return_parameter: names the return
    address there. clears_cookie, cookie_domain: whether, and for which domain, the cookie of an
    ended session is expired. tells_user: whether the app learns user and session by headers.
    session_header: of a gateway's own app.
    """

    cookies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    sign_in_url: str | None = None
    sign_out_url: str | None = None
    step_up_url: str | None = None
    return_parameter: str = "return_to"
    unknown_session: UnknownSession = UnknownSession.DENY
    fallback: Fallback = Fallback.DENY
    session_header: SessionHeader = SessionHeader.IGNORED
    clears_cookie: bool = True
    cookie_domain: str | None = None
    tells_user: bool = False


def faults_of(setting: ForwardAuthSetting) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a setting: JSON pointer and rule. Raises nothing."""
    at = "/forward_auth"
    if len(setting.cookies) > COOKIES_MAX or not all(map(_TOKEN.fullmatch, setting.cookies)):
        yield f"{at}/cookies", f"at most {COOKIES_MAX} names of cookies"
    if len(setting.origins) > ORIGINS_MAX or not all(map(_ORIGIN.fullmatch, setting.origins)):
        yield f"{at}/origins", f"at most {ORIGINS_MAX} of the form https://host[:port]"
    for name in ("sign_in_url", "sign_out_url", "step_up_url"):
        url: str | None = getattr(setting, name)
        if url is not None and not _is_url(url):
            yield f"{at}/{name}", "an absolute http(s) URL of visible ASCII without fragment"
    if not _PARAMETER.fullmatch(setting.return_parameter):
        yield f"{at}/return_parameter", "a name of letters, digits, '_', '.', '-'"
    if setting.cookie_domain is not None and not _DOMAIN.fullmatch(setting.cookie_domain):
        yield f"{at}/cookie_domain", "a domain name"


def _is_url(url: str) -> bool:
    # It becomes the value of a header: nothing that could end one may be in it.
    if len(url) > URL_CHARACTERS_MAX or not re.fullmatch(r"[!-~]+", url):
        return False
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return bool(
        parts.scheme in {"https", "http"}
        and parts.hostname
        and not parts.username
        and not parts.fragment
        and has_port
    )
