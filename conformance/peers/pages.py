"""Pages of the identity provider for people with a browser: sign in, step up, sign out.

The step-up page does what a real one must: it honours what was asked for, tells the hub how it
ended, and sends the browser back to addresses it knows only.
"""

import hashlib
import html
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from conformance.peers.peer import read_body

COOKIE = "session"
COOKIE_BYTES = 24
#: what the second factor of this page reaches
STRONG_ACR = "phr"
STRONG_AMR = ("hwk", "user")
SEE_OTHER = 303


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A browser's session. value: of its cookie."""

    sid: str
    value: str

    @property
    def cookie_sha256(self) -> str:
        """How the hub knows the cookie."""
        return hashlib.sha256(self.value.encode()).hexdigest()


class Browsers:
    """Which browser has which session, by its cookie."""

    def __init__(self) -> None:
        self._by_value: dict[str, SignedIn] = {}

    def open(self, sid: str) -> SignedIn:
        """Remember a new session and make up its cookie."""
        signed_in = SignedIn(sid=sid, value=secrets.token_urlsafe(COOKIE_BYTES))
        self._by_value[signed_in.value] = signed_in
        return signed_in

    def of(self, request: Request) -> SignedIn | None:
        """Return the session of the browser that asks."""
        return self._by_value.get(request.cookies.get(COOKIE, ""))

    def forget(self, signed_in: SignedIn) -> None:
        """Drop a session."""
        self._by_value.pop(signed_in.value, None)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, the last of each name."""
    fields = parse_qs((await read_body(request)).decode(), keep_blank_values=True)
    return {name: values[-1] for name, values in fields.items()}


def sign_in_page(query: Mapping[str, str]) -> Response:
    """Ask who it is."""
    return _page(
        "Sign in", "/sign-in", query, "<input name=user autofocus><button id=go>Go</button>"
    )


def step_up_page(query: Mapping[str, str]) -> Response:
    """Ask for the second factor that was wanted."""
    wanted = html.escape(query.get("acr_values") or "any strong factor")
    buttons = (
        f"<p id=wanted>{wanted}</p>"
        "<button id=confirm name=outcome value=passed>Confirm with your security key</button>"
        "<button id=refuse name=outcome value=refused>This is not me</button>"
    )
    return _page("Confirm it is you", "/step-up", query, buttons)


def reached(acr_values: str) -> str:
    """Return the acr that the factor gives: the first wanted one, or the page's own."""
    return next(iter(acr_values.split()), STRONG_ACR)


def back(fields: Mapping[str, str], origins: tuple[str, ...], done: str) -> Response:
    """Send the browser back, to a known origin only; others get a page that says `done`."""
    target = fields.get("return_to", "")
    parts = urlsplit(target)
    if f"{parts.scheme}://{parts.netloc}" in origins:
        return Response(status_code=SEE_OTHER, headers={"location": target})
    return HTMLResponse(f"<!doctype html><title>{html.escape(done)}</title><h1>{html.escape(done)}")


def set_cookie(response: Response, signed_in: SignedIn) -> Response:
    """Give the browser its cookie."""
    response.set_cookie(COOKIE, signed_in.value, httponly=True, samesite="lax")
    return response


def _page(title: str, action: str, query: Mapping[str, str], inside: str) -> Response:
    hidden = "".join(
        f'<input type=hidden name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in query.items()
    )
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f'<h1>{title}</h1><form method=post action="{action}">{hidden}{inside}</form></html>'
    )
