"""The bounds of what an admin may decide about an upstream. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from receivers.upstreams.model import (
    VERIFY_EVERY_MAX_S,
    VERIFY_EVERY_MIN_S,
    Auth,
    UpstreamSettings,
)
from runtime.errors import Invalid
from ssf.stream import DESCRIPTION_CHARS_MAX, EVENT_URI_CHARS_MAX, EVENTS_REQUESTED_MAX

NAME_CHARS_MAX: Final = 200
URL_CHARS_MAX: Final = 2_048
TEXT_CHARS_MAX: Final = 512
SECRET_CHARS_MAX: Final = 4_096

_VISIBLE: Final = re.compile(r"[!-~]+")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")

_Problem = tuple[str, str]


def check_settings(
    settings: UpstreamSettings, *, secret: str | None, has_secret: bool, dev_insecure: bool
) -> None:
    """Pass when the settings can be stored.

    secret: a new one, has_secret: one is there by the end. dev_insecure: http will do.
    Raises Invalid with a JSON pointer per problem. Requirements SSF-META-24, POLL-21.
    """
    problems = [
        *_url_problems(settings, dev_insecure=dev_insecure),
        *_stream_problems(settings),
        *_auth_problems(settings, secret, has_secret=has_secret),
    ]
    if problems:
        raise Invalid("The upstream's settings are not acceptable.", pointers=tuple(problems))


def _url_problems(settings: UpstreamSettings, *, dev_insecure: bool) -> Iterator[_Problem]:
    schemes = {"https", "http"} if dev_insecure else {"https"}
    for name in ("metadata_url", "endpoint_url", "token_endpoint"):
        url = getattr(settings, name)
        if url is not None and not _is_usable(url, schemes):
            yield f"/{name}", f"an https URL of at most {URL_CHARS_MAX} characters, without user"


def _is_usable(url: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return (
        usable
        and len(url) <= URL_CHARS_MAX
        and bool(_VISIBLE.fullmatch(url))
        and "@" not in parts.netloc
        and "#" not in url
        and "\\" not in url
    )


def _stream_problems(settings: UpstreamSettings) -> Iterator[_Problem]:
    events = settings.events_requested
    if len(events) > EVENTS_REQUESTED_MAX or not all(
        len(uri) <= EVENT_URI_CHARS_MAX and _VISIBLE.fullmatch(uri) for uri in events
    ):
        yield "/events_requested", f"at most {EVENTS_REQUESTED_MAX} URIs"
    name = settings.name
    if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        yield "/name", f"1 to {NAME_CHARS_MAX} printable characters"
    text = settings.description
    if text is not None and not (0 < len(text) <= DESCRIPTION_CHARS_MAX and text.isprintable()):
        yield "/description", f"1 to {DESCRIPTION_CHARS_MAX} printable characters"
    every = settings.verify_every_s
    if every is not None and not VERIFY_EVERY_MIN_S <= every <= VERIFY_EVERY_MAX_S:
        yield "/verify_every_s", f"{VERIFY_EVERY_MIN_S} to {VERIFY_EVERY_MAX_S} seconds, or null"


def _auth_problems(
    settings: UpstreamSettings, secret: str | None, *, has_secret: bool
) -> Iterator[_Problem]:
    if secret is not None and not (
        len(secret) <= SECRET_CHARS_MAX and _HEADER_VALUE.fullmatch(secret)
    ):
        yield "/secret", f"1 to {SECRET_CHARS_MAX} visible ASCII characters"
    if settings.auth is not Auth.NONE and not has_secret:
        yield "/secret", f"auth {settings.auth.value} needs one"
    needs_client = settings.auth in {Auth.BASIC, Auth.POST}
    client_id = settings.client_id
    if needs_client and client_id is None:
        yield "/client_id", f"auth {settings.auth.value} needs one"
    if client_id is not None and not (
        len(client_id) <= TEXT_CHARS_MAX and _HEADER_VALUE.fullmatch(client_id)
    ):
        yield "/client_id", f"1 to {TEXT_CHARS_MAX} visible ASCII characters"
    scope = settings.scope
    if scope is not None and not (len(scope) <= TEXT_CHARS_MAX and _HEADER_VALUE.fullmatch(scope)):
        yield "/scope", f"1 to {TEXT_CHARS_MAX} visible ASCII characters"
