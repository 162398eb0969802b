"""Transmitter configuration metadata (SSF 1.0 §7): where it lies, writing ours, reading others'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from ssf.errors import LocalProtocolError, StreamError
from ssf.strict_json import parse_object

WELL_KNOWN_PATH: Final = "/.well-known/ssf-configuration"
SPEC_VERSION: Final = "1_0"
SPEC_VERSION_ABSENT: Final = "1_0-ID1"
OAUTH2_SPEC_URN: Final = "urn:ietf:rfc:6749"

METADATA_BYTES_MAX: Final = 256 * 1024
ISSUER_CHARS_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmitterMetadata:
    """What a transmitter says of itself; None and () stand for absent members.

    authorization_schemes: the `spec_urn` values. default_subjects: "ALL", "NONE" or None.
    Requirements SSF-META-1 to SSF-META-13.
    """

    issuer: str
    spec_version: str = SPEC_VERSION
    jwks_uri: str | None = None
    delivery_methods_supported: tuple[str, ...] = ()
    configuration_endpoint: str | None = None
    status_endpoint: str | None = None
    add_subject_endpoint: str | None = None
    remove_subject_endpoint: str | None = None
    verification_endpoint: str | None = None
    authorization_schemes: tuple[str, ...] = ()
    default_subjects: str | None = None
    critical_subject_members: tuple[str, ...] = ()


_URL_MEMBERS: Final = (
    "jwks_uri",
    "configuration_endpoint",
    "status_endpoint",
    "add_subject_endpoint",
    "remove_subject_endpoint",
    "verification_endpoint",
)


def metadata_url(issuer: str) -> str:
    """Return where the metadata of an issuer lies: the well-known path between host and path.

    A terminating "/" of the issuer is dropped first. Raises StreamError for an issuer that is no
    http(s) URL with a host, or has a query or fragment.
    Source: SSF 1.0 §7.2.1; requirements SSF-META-2, SSF-META-20.
    """
    try:
        parts = urlsplit(issuer)
        has_host = bool(parts.hostname)
    except ValueError:
        raise _unusable("the issuer is no URL", "SSF-META-2") from None
    if (
        parts.scheme not in {"https", "http"}
        or not has_host
        or "?" in issuer
        or "#" in issuer
        or len(issuer) > ISSUER_CHARS_MAX
    ):
        raise _unusable("the issuer is no https URL without query and fragment", "SSF-META-2")
    return urlunsplit(
        (parts.scheme, parts.netloc, WELL_KNOWN_PATH + parts.path.removesuffix("/"), "", "")
    )


def render_metadata(metadata: TransmitterMetadata) -> dict[str, object]:
    """Render our metadata; members without a value are left out, so no array is ever empty.

    Raises LocalProtocolError when default_subjects is neither ALL, NONE nor absent.
    Source: SSF 1.0 §7.1, §7.2.3; requirements SSF-META-1 to SSF-META-12, SSF-META-22, INT-3 to
    INT-9.
    """
    if metadata.default_subjects not in {None, "ALL", "NONE"}:
        raise LocalProtocolError("metadata", "default_subjects is ALL or NONE")
    members: dict[str, object] = {
        "spec_version": metadata.spec_version,
        "issuer": metadata.issuer,
        **{name: getattr(metadata, name) for name in _URL_MEMBERS},
        "delivery_methods_supported": list(metadata.delivery_methods_supported),
        "authorization_schemes": [{"spec_urn": urn} for urn in metadata.authorization_schemes],
        "default_subjects": metadata.default_subjects,
        "critical_subject_members": list(metadata.critical_subject_members),
    }
    return {name: value for name, value in members.items() if value not in (None, [])}


def parse_metadata(body: bytes, issuer: str) -> TransmitterMetadata:
    """Read the metadata fetched from `metadata_url(issuer)`.

    body: at most METADATA_BYTES_MAX. Unknown members are ignored; the rest is used only if all of
    it is sound. Raises StreamError.
    Source: SSF 1.0 §7.2.4: the issuer MUST be identical; requirements SSF-META-2, SSF-META-21,
    SSF-META-23.
    """
    members = parse_object(body, bytes_max=METADATA_BYTES_MAX, error=_bad_document)
    if members.get("issuer") != issuer:
        raise _unusable("issuer is not the one asked for", "SSF-META-23")
    return TransmitterMetadata(
        issuer=issuer,
        spec_version=_optional(members, "spec_version") or SPEC_VERSION_ABSENT,
        **{name: _url(members, name) for name in _URL_MEMBERS},
        delivery_methods_supported=_strings(members, "delivery_methods_supported"),
        authorization_schemes=_schemes(members),
        default_subjects=_optional(members, "default_subjects"),
        critical_subject_members=_strings(members, "critical_subject_members"),
    )


def _optional(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _bad_document(f"{name} is no string")


def _url(members: Mapping[str, Any], name: str) -> str | None:
    value = _optional(members, name)
    if value is not None and not value.startswith(("https://", "http://")):
        raise _bad_document(f"{name} is no http(s) URL")
    return value


def _strings(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = members.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _bad_document(f"{name} is no array of strings")
    return tuple(value)


def _schemes(members: Mapping[str, Any]) -> tuple[str, ...]:
    value = members.get("authorization_schemes") or []
    if not isinstance(value, list):
        raise _bad_document("authorization_schemes is no array")
    urns = [scheme.get("spec_urn") if isinstance(scheme, dict) else None for scheme in value]
    # A scheme without spec_urn cannot be named, so it cannot be used: left out, not an error.
    return tuple(urn for urn in urns if isinstance(urn, str))


def _bad_document(description: str) -> StreamError:
    return _unusable(description, "SSF-META-21")


def _unusable(description: str, requirement: str) -> StreamError:
    return StreamError("invalid_metadata", f"metadata: {description}", requirement=requirement)
