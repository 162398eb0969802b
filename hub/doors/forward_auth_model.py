"""What a gateway asks, and how each of them wants its answer. Pure.

    nginx      2xx lets pass, 401 and 403 keep out, anything else becomes 500 (FWA-1)
    traefik, caddy, haproxy      any answer but 2xx goes to the browser (FWA-3 to FWA-5)
    envoy      200 alone lets pass (FWA-6)

Source: standards §19.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from actions.fronting import ForwardAuthSetting
from hub.inline.model import CHAIN_HOPS_MAX, TEXT_CHARACTERS_MAX, Answer
from risk.verdict import Decision

OK: Final = 200
FOUND: Final = 302
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
#: of one request that are tried, over all names of an app
COOKIES_TRIED_MAX: Final = 8
#: a shorter value can be guessed: it is no session (FWA-25)
COOKIE_BYTES_MIN: Final = 16
REASONS_CHARACTERS_MAX: Final = 1_000
RETURN_CHARACTERS_MAX: Final = 2_000
NO_SESSION: Final = "NO_SESSION"
FALLBACK: Final = "FALLBACK"
ERROR: Final = "ERROR"
#: the reasons of answers that are no decision: the time was up, or the facts were not there
UNDECIDED: Final = frozenset({"undecided", "out_of_time"})
EXPIRED: Final = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
PAGE_METHODS: Final = frozenset({"GET", "HEAD"})
_ACR: Final = re.compile(r"[A-Za-z0-9:/._-]+")
_UNSAFE: Final = re.compile(r"[^!-+\--~]")
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f]")

Headers = Sequence[tuple[bytes, bytes]]


class Dialect(StrEnum):
    """How a gateway understands an answer."""

    NGINX = "nginx"
    TRAEFIK = "traefik"
    CADDY = "caddy"
    HAPROXY = "haproxy"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The request that stands at the gateway.

    uri: path with query, begins with "/". origin: `https://host`, empty when unknown. cookies: raw
    (name, value) in their order. is_page: a browser that wants a page, which may be sent elsewhere.
    """

    method: str
    uri: str
    origin: str
    chain: tuple[str, ...]
    cookies: tuple[tuple[str, bytes], ...]
    user_agent: str | None
    accept_language: str | None
    ja4: str | None
    is_page: bool

    @property
    def path(self) -> str:
        """The path without the query, which no policy and no log sees (FWA-24)."""
        return self.uri.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Where a browser is sent, if anywhere. challenge: `WWW-Authenticate` for all others."""

    location: str | None = None
    challenge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the gateway is answered. headers: several of one name are possible."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)


def parse_original(headers: Headers, *, dialect: Dialect, method: str, tail: str) -> Original:
    """Read the original request out of what the gateway says. Raises nothing.

    method, tail: of the gateway's own request; Envoy's are the original ones.
    """
    said = _last_values(headers)
    uri = said.get("x-forwarded-uri") or said.get("x-original-uri") or said.get("x-original-url")
    if uri is None:
        uri = tail if dialect is Dialect.ENVOY else "/"
    proto, host = said.get("x-forwarded-proto", ""), said.get("x-forwarded-host", "")
    if dialect is Dialect.ENVOY and not host:
        host = said.get("host", "")
    if "://" in uri.partition("?")[0]:  # Ingress sends it whole
        proto, host, uri = _split_absolute(uri)
    wanted = said.get("x-forwarded-method") or said.get("x-original-method")
    if wanted is None:
        wanted = method if dialect is Dialect.ENVOY else "GET"
    accept = said.get("accept", "")
    return Original(
        method=wanted.upper()[:TEXT_CHARACTERS_MAX],
        uri=uri if uri.startswith("/") else "/",
        origin=f"{proto}://{host}".lower() if proto and host else "",
        chain=_chain(headers),
        cookies=tuple(parse_cookies(value for name, value in headers if name == b"cookie")),
        user_agent=_short(said.get("user-agent")),
        accept_language=_short(said.get("accept-language")),
        ja4=_short(said.get("x-signalhub-ja4")),
        is_page=wanted.upper() in PAGE_METHODS and "text/html" in accept.lower(),
    )


def parse_cookies(headers: Iterable[bytes]) -> Iterable[tuple[str, bytes]]:
    """Yield names and raw values of cookies. Raises nothing. Source: RFC 6265 §5.4; FWA-22.

    The value is what stands between `=` and `;`, without quotes around it, nothing decoded.
    """
    for header in headers:
        for pair in header.split(b";"):
            name, equals, value = pair.strip(b" \t").partition(b"=")
            if not equals:
                continue
            value = value.strip(b" \t")
            if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
                value = value[1:-1]
            yield name.decode("latin-1"), value


def session_cookies(original: Original, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, SHA-256 in hexadecimal) of cookies that may be the session's (FWA-25)."""
    found = [
        (name, hashlib.sha256(value).hexdigest())
        for wanted in names
        for name, value in original.cookies
        if name == wanted and len(value) >= COOKIE_BYTES_MIN
    ]
    return list(dict.fromkeys(found))[:COOKIES_TRIED_MAX]


def return_address(original: Original, setting: ForwardAuthSetting) -> str | None:
    """Return where the browser may come back to; None outside the app's own origins (FWA-41).

    INVARIANT: what the request says never becomes the host of an address; only a registered
    origin does.
    """
    origin = next((each for each in setting.origins if each == original.origin), None)
    if origin is None or _BREAKS.search(original.uri):
        return None
    address = origin + quote(original.uri, safe="!#$%&'()*+,/:;=?@[]~-._")
    return address if len(address) <= RETURN_CHARACTERS_MAX else None


def with_parameters(url: str, parameters: Mapping[str, str | None]) -> str:
    """Return a registered URL with further parameters; those without a value are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    if not given:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(given, quote_via=quote)}"


def acr_values(answer: Answer) -> str | None:
    """Return what a step-up has to reach, only names that need no escaping (STEP-10)."""
    said = answer.acr or answer.verdict.acr or ""
    return " ".join(each for each in said.split() if _ACR.fullmatch(each)) or None


def max_age(answer: Answer) -> int:
    """Return how old the authentication may be, in seconds; at once where nothing is said."""
    said = answer.max_age if answer.max_age is not None else answer.verdict.max_age
    return 0 if said is None else max(0, said)


def step_up_challenge(answer: Answer) -> str:
    """Return the challenge of RFC 9470 §3. Requirements STEP-1, STEP-2, STEP-10."""
    parts = [
        'Bearer error="insufficient_user_authentication"',
        'error_description="A different authentication level is required"',
    ]
    if acr := acr_values(answer):
        parts.append(f'acr_values="{acr}"')
    return ", ".join([*parts, f'max_age="{max_age(answer)}"'])


def keep_out(dialect: Dialect, original: Original, wanted: Wanted) -> Reply:
    """Return the answer that sends a browser elsewhere, or tells a program what it lacks.

    nginx takes 401 only, and redirects by itself (FWA-2, EGW-70).
    """
    if wanted.location is not None and original.is_page:
        if dialect is Dialect.NGINX:
            return Reply(
                status=UNAUTHORIZED,
                headers=[
                    ("www-authenticate", wanted.challenge),
                    ("x-signalhub-location", wanted.location),
                ],
            )
        return Reply(status=FOUND, headers=[("location", wanted.location)])
    return Reply(status=UNAUTHORIZED, headers=[("www-authenticate", wanted.challenge)])


def expired_cookie(name: str, setting: ForwardAuthSetting, *, is_https: bool) -> str:
    """Return the `Set-Cookie` that takes a session's cookie away (FWA-33)."""
    parts = [f"{name}=", "Path=/", EXPIRED, "HttpOnly", "SameSite=Lax"]
    if setting.cookie_domain and not name.startswith("__Host-"):
        parts.insert(1, f"Domain={setting.cookie_domain}")
    if is_https or name.startswith("__"):
        parts.append("Secure")
    return "; ".join(parts)


def verdict_headers(answer: Answer) -> list[tuple[str, str]]:
    """Return what every answer says of its verdict (FWA-40)."""
    verdict = answer.verdict
    found = [
        ("x-signalhub-decision", verdict.decision.name),
        ("x-signalhub-scope", verdict.scope.name.lower()),
        ("x-signalhub-mode", verdict.mode.value),
        ("x-signalhub-cache-ttl-ms", str(answer.cache_ttl_ms)),
    ]
    if verdict.would_have not in (None, verdict.decision):
        found.append(("x-signalhub-would-have", verdict.would_have.name))
    if verdict.reasons:
        reasons = ",".join(_UNSAFE.sub("_", reason) for reason in verdict.reasons)
        found.append(("x-signalhub-reasons", reasons[:REASONS_CHARACTERS_MAX]))
    if answer.trace_id:
        found.append(("x-signalhub-trace-id", _UNSAFE.sub("_", answer.trace_id)))
    return found


def is_undecided(answer: Answer) -> bool:
    """Tell whether an answer is what policies fall back to, not a decision about this request."""
    return not UNDECIDED.isdisjoint(answer.verdict.reasons)


def is_unknown(answer: Answer) -> bool:
    """Tell whether no session was found."""
    return not answer.session_id and answer.verdict.decision is not Decision.ALLOW


def _last_values(headers: Headers) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _chain(headers: Headers) -> tuple[str, ...]:
    """Return the hops of X-Forwarded-For, those nearest to the gateway where there are too many."""
    said = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    hops = [hop.strip().decode("latin-1")[:TEXT_CHARACTERS_MAX] for hop in said.split(b",")]
    return tuple(hop for hop in hops[-CHAIN_HOPS_MAX:] if hop)


def _split_absolute(uri: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "", "", "/"
    query = f"?{parts.query}" if parts.query else ""
    return parts.scheme, parts.netloc, (parts.path or "/") + query


def _short(text: str | None) -> str | None:
    return None if text is None else text[:TEXT_CHARACTERS_MAX]
