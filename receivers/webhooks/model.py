"""A provider's webhook: how it signs and what its messages mean. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from receivers.webhooks import profiles
from receivers.webhooks.mapping import WebhookMapping
from receivers.webhooks.rules import compile_mapping
from receivers.webhooks.signatures import (
    SECRET_CHARS_MAX,
    SECRET_CHARS_MIN,
    SECRETS_MAX,
    TOLERANCE_S_MAX,
    SignatureSettings,
    WebhookStyle,
    standard_key,
)
from runtime.errors import Invalid

HEADER_CHARS_MAX: Final = 64
TEMPLATE_CHARS_MAX: Final = 64
MAPPING_BYTES_MAX: Final = 64 * 1024
ALGORITHMS: Final = ("sha256", "sha512", "sha1")
ENCODINGS: Final = ("hex", "base64")

_Problem = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings(SignatureSettings):
    """What an admin decides about a provider's webhook. Exactly one of profile and mapping is set.

    profile: the name of a mapping that comes with the hub. mapping: one of the admin's own.
    """

    profile: str | None = None
    mapping: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookIntake:
    """A provider's webhook made ready: secrets opened, mapping checked."""

    signature: SignatureSettings
    secrets: tuple[str, ...]
    mapping: WebhookMapping


def build_intake(settings: WebhookSettings, secrets: Sequence[str]) -> WebhookIntake:
    """Make a stored webhook ready. Raises Invalid when its mapping is none (any more)."""
    return WebhookIntake(signature=settings, secrets=tuple(secrets), mapping=mapping_of(settings))


def mapping_of(settings: WebhookSettings) -> WebhookMapping:
    """Return the mapping that the settings name. Raises Invalid."""
    if settings.profile is not None:
        return profiles.find(settings.profile).mapping
    return compile_mapping(settings.mapping, "/webhook/mapping")


def webhook_problems(settings: WebhookSettings) -> Iterator[_Problem]:
    """Yield what is wrong with the settings of a webhook, as (JSON pointer, what is wanted)."""
    yield from _mapping_problems(settings)
    for name in ("header", "timestamp_header"):
        value: str | None = getattr(settings, name)
        if value is not None and not _is_header(value):
            yield f"/webhook/{name}", "the name of a header"
    if settings.style is WebhookStyle.HEADER and settings.header is None:
        yield "/webhook/header", "the name of the header that holds the secret"
    if settings.algorithm not in ALGORITHMS:
        yield "/webhook/algorithm", f"one of {', '.join(ALGORITHMS)}"
    if settings.encoding not in ENCODINGS:
        yield "/webhook/encoding", f"one of {', '.join(ENCODINGS)}"
    yield from _template_problems(settings)


def secret_problems(settings: WebhookSettings, secrets: Sequence[str]) -> Iterator[_Problem]:
    """Yield what is wrong with the secrets of a webhook. It tells nothing of them."""
    if not 0 < len(secrets) <= SECRETS_MAX:
        yield "/webhook_secrets", f"1 to {SECRETS_MAX} secrets are needed"
    for place, secret in enumerate(secrets):
        is_long_enough = SECRET_CHARS_MIN <= len(secret) <= SECRET_CHARS_MAX
        if not is_long_enough or not secret.isascii() or not secret.isprintable():
            yield (
                f"/webhook_secrets/{place}",
                f"{SECRET_CHARS_MIN} to {SECRET_CHARS_MAX} visible ASCII characters",
            )
        elif settings.style is WebhookStyle.STANDARD and standard_key(secret) is None:
            yield f"/webhook_secrets/{place}", "whsec_ and 24 to 64 octets in base64"
        elif settings.style is WebhookStyle.BASIC and ":" not in secret:
            yield f"/webhook_secrets/{place}", "user:password"


def _mapping_problems(settings: WebhookSettings) -> Iterator[_Problem]:
    if (settings.profile is None) == (settings.mapping is None):
        yield "/webhook/mapping", "exactly one of profile and mapping is needed"
    elif settings.mapping and len(msgspec.json.encode(settings.mapping)) > MAPPING_BYTES_MAX:
        yield "/webhook/mapping", f"at most {MAPPING_BYTES_MAX} bytes"
    else:
        try:
            mapping_of(settings)
        except Invalid as error:
            yield from error.pointers


def _template_problems(settings: WebhookSettings) -> Iterator[_Problem]:
    if len(settings.prefix) > TEMPLATE_CHARS_MAX or not settings.prefix.isprintable():
        yield "/webhook/prefix", f"at most {TEMPLATE_CHARS_MAX} characters"
    signed = settings.signed
    if len(signed) > TEMPLATE_CHARS_MAX or signed.count("{body}") != 1:
        yield "/webhook/signed", "what is signed, with {body} once"
    # A signature over a time that nobody reads would prove nothing of when it was sent.
    elif ("{timestamp}" in signed) != (settings.timestamp_header is not None):
        yield "/webhook/signed", "{timestamp} goes together with timestamp_header"
    if not 1 <= settings.tolerance_s <= TOLERANCE_S_MAX:
        yield "/webhook/tolerance_s", f"1 to {TOLERANCE_S_MAX} seconds"


def _is_header(name: str) -> bool:
    return 0 < len(name) <= HEADER_CHARS_MAX and name.replace("-", "").isalnum() and name.isascii()
