"""The bounds of what an admin may decide about a provider. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from receivers.model import LEVELS, ProviderSettings, SubjectScope
from receivers.webhooks.model import secret_problems, webhook_problems
from runtime.errors import Invalid
from ssf.errors import SETError
from ssf.jose import DEFAULT_ALGORITHMS, verification_key
from ssf.jwks import KEYS_MAX
from ssf.stream import is_event_uri

PROVIDERS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 100
ISSUER_CHARS_MAX: Final = 700
CLIENT_ID_CHARS_MAX: Final = 64
URL_CHARS_MAX: Final = 1_000
AUDIENCES_MAX: Final = 20
EVENT_TYPES_MAX: Final = 100
SCOPE_ENTRIES_MAX: Final = 1_000
CRITICAL_MEMBERS_MAX: Final = 20
ENTRY_CHARS_MAX: Final = 1_000
LIMIT_MAX: Final = 1_000_000
AUTHORIZATION_CHARS_MAX: Final = 4_096
INLINE_JWKS_BYTES_MAX: Final = 64 * 1024

# Visible ASCII: an issuer, an audience or a URL with a blank in it is a typing mistake.
_VISIBLE: Final = re.compile(r"[!-~]+")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_DOMAIN: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_SOURCE_CLASS: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")

_Problem = tuple[str, str]


def check_settings(
    settings: ProviderSettings, *, dev_insecure: bool, before: ProviderSettings | None = None
) -> None:
    """Pass when the settings can be stored.

    dev_insecure: also take a jwks_uri with http. before: what is stored; a type of event that is
    there may stay, so that what an older release took hinders no other change. Raises Invalid with
    a JSON pointer per problem.
    Requirements SET-33, SET-54, SET-57, SUB-33.
    """
    problems = [
        *_name_problems(settings),
        *_key_problems(settings, dev_insecure=dev_insecure),
        *_list_problems(settings, before),
        *_scope_problems(settings.subject_scope),
        *_weight_problems(settings),
        *(webhook_problems(settings.webhook) if settings.webhook else ()),
    ]
    if problems:
        raise Invalid("The provider's settings are not acceptable.", pointers=tuple(problems))


def check_authorization_header(value: str | None) -> None:
    """Pass when the value can be an Authorization field. Raises Invalid. Requirement PUSH-5."""
    if value is not None and not (
        len(value) <= AUTHORIZATION_CHARS_MAX and _HEADER_VALUE.fullmatch(value)
    ):
        raise Invalid(
            "The provider's settings are not acceptable.",
            pointers=(("/authorization_header", "1 to 4096 visible ASCII characters"),),
        )


def check_webhook_secrets(settings: ProviderSettings, secrets: Sequence[str]) -> None:
    """Pass when the secrets fit the provider's webhook. Raises Invalid that tells none of them."""
    if settings.webhook is None:
        problems = [("/webhook_secrets", "only for a provider with a webhook")] if secrets else []
    else:
        problems = list(secret_problems(settings.webhook, secrets))
    if problems:
        raise Invalid("The provider's settings are not acceptable.", pointers=tuple(problems))


def sends_sets(settings: ProviderSettings) -> bool:
    """Return whether SETs are expected of a provider: it has keys, or nothing else to say."""
    has_keys = settings.jwks_uri is not None or settings.jwks is not None
    return has_keys or (settings.client_id is None and settings.webhook is None)


def _name_problems(settings: ProviderSettings) -> Iterator[_Problem]:
    name = settings.name
    if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable() or name != name.strip():
        yield "/name", f"1 to {NAME_CHARS_MAX} printable characters"
    if not _is_visible(settings.issuer, ISSUER_CHARS_MAX):
        yield "/issuer", f"1 to {ISSUER_CHARS_MAX} visible ASCII characters"
    if settings.client_id is not None and not _is_visible(settings.client_id, CLIENT_ID_CHARS_MAX):
        yield "/client_id", f"1 to {CLIENT_ID_CHARS_MAX} visible ASCII characters"


def _key_problems(settings: ProviderSettings, *, dev_insecure: bool) -> Iterator[_Problem]:
    given = (settings.jwks_uri is not None) + (settings.jwks is not None)
    if given > 1 or given < sends_sets(settings):
        yield "/jwks_uri", "exactly one of jwks_uri and jwks is needed"
    if settings.jwks_uri is not None:
        yield from url_problems("/jwks_uri", settings.jwks_uri, dev_insecure=dev_insecure)
    if settings.jwks is not None:
        yield from key_set_problems(settings.jwks)


def key_set_problems(jwks: Mapping[str, object]) -> Iterator[_Problem]:
    """Return what is wrong with a key set written by hand, under the pointer `/jwks`."""
    yield from _inline_key_problems(jwks.get("keys"))
    if len(msgspec.json.encode(jwks)) > INLINE_JWKS_BYTES_MAX:
        yield "/jwks", f"more than {INLINE_JWKS_BYTES_MAX} bytes"


def url_problems(pointer: str, url: str, *, dev_insecure: bool) -> Iterator[_Problem]:
    """Return what is wrong with a URL that we are to call. dev_insecure: also take http."""
    schemes = {"https", "http"} if dev_insecure else {"https"}
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        yield pointer, "not a URL"
        return
    if not usable or not _is_visible(url, URL_CHARS_MAX):
        yield pointer, f"an https URL of at most {URL_CHARS_MAX} characters is needed"
    elif parts.username is not None or parts.fragment:
        yield pointer, "neither credentials nor a fragment may be in it"


def _inline_key_problems(keys: object) -> Iterator[_Problem]:
    if not isinstance(keys, list) or not 0 < len(keys) <= KEYS_MAX:
        yield "/jwks/keys", f"an array of 1 to {KEYS_MAX} keys is needed"
        return
    for index, key in enumerate(keys):
        # A fetched set may hold keys we cannot use; a list written by hand should not.
        if not isinstance(key, dict):
            yield f"/jwks/keys/{index}", "not a JWK"
            continue
        try:
            verification_key(key)
        except SETError as cause:
            yield f"/jwks/keys/{index}", cause.description


def _list_problems(
    settings: ProviderSettings, before: ProviderSettings | None
) -> Iterator[_Problem]:
    known = (before.event_types if before is not None else None) or frozenset()
    if (settings.audiences or sends_sets(settings)) and not _are_visible(
        settings.audiences, AUDIENCES_MAX
    ):
        yield "/audiences", f"1 to {AUDIENCES_MAX} visible ASCII texts are needed"
    if settings.event_types is not None and not _are_visible(settings.event_types, EVENT_TYPES_MAX):
        yield "/event_types", f"1 to {EVENT_TYPES_MAX} URIs, or null for all"
    elif not all(map(is_event_uri, (settings.event_types or frozenset()) - known)):
        yield "/event_types", "each an absolute URI, such as https://… or urn:…"
    if settings.critical_subject_members and not _are_visible(
        settings.critical_subject_members, CRITICAL_MEMBERS_MAX
    ):
        yield "/critical_subject_members", f"at most {CRITICAL_MEMBERS_MAX} member names"
    if not settings.algorithms or not settings.algorithms <= DEFAULT_ALGORITHMS:
        yield "/algorithms", f"some of {', '.join(sorted(DEFAULT_ALGORITHMS))}"


def _scope_problems(scope: SubjectScope | None) -> Iterator[_Problem]:
    if scope is None:
        return
    if not scope.domains and not scope.issuers:
        yield "/subject_scope", "names nobody; use null for everybody"
    if len(scope.domains) > SCOPE_ENTRIES_MAX or not all(map(_is_domain, scope.domains)):
        yield "/subject_scope/domains", "lower-case domain names (A-labels)"
    if scope.issuers and not _are_visible(scope.issuers, SCOPE_ENTRIES_MAX):
        yield "/subject_scope/issuers", "visible ASCII texts"


def _weight_problems(settings: ProviderSettings) -> Iterator[_Problem]:
    if settings.level_cap is not None and settings.level_cap not in LEVELS:
        yield "/level_cap", f"one of {', '.join(LEVELS)}, or null"
    if not 1 <= settings.high_users_per_hour_max <= LIMIT_MAX:
        yield "/high_users_per_hour_max", f"1 to {LIMIT_MAX}"
    if settings.sets_per_s_max is not None and not 1 <= settings.sets_per_s_max <= LIMIT_MAX:
        yield "/sets_per_s_max", f"1 to {LIMIT_MAX}, or null"
    if not _SOURCE_CLASS.fullmatch(settings.source_class):
        yield "/source_class", "1 to 32 lower-case letters, digits and underscores"


def _is_visible(text: str, chars_max: int) -> bool:
    return len(text) <= chars_max and bool(_VISIBLE.fullmatch(text))


def _are_visible(texts: Collection[str], entries_max: int) -> bool:
    return 0 < len(texts) <= entries_max and all(
        _is_visible(text, ENTRY_CHARS_MAX) for text in texts
    )


_is_domain: Final[Callable[[str], object]] = _DOMAIN.fullmatch
