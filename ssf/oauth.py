"""OAuth as a client of somebody else's transmitter: pure reading and writing of its messages."""

import base64
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

from ssf.errors import StreamError
from ssf.strict_json import parse_object

AUTHORIZATION_SERVER_PATH: Final = "/.well-known/oauth-authorization-server"
PROTECTED_RESOURCE_PATH: Final = "/.well-known/oauth-protected-resource"
#: what the CAEP interoperability profile reserves, asked for when nothing better is known (INT-23)
DEFAULT_SCOPE: Final = "ssf.read ssf.manage"
DOCUMENT_BYTES_MAX: Final = 64 * 1024
TOKEN_CHARS_MAX: Final = 8_192
SCOPES_MAX: Final = 50
#: a token without `expires_in` is used this long; a longer promise is cut to the second value
EXPIRES_DEFAULT_S: Final = 300
EXPIRES_MAX_S: Final = 24 * 3600

_VISIBLE: Final = re.compile(r"[!-~]+")
_RESOURCE_METADATA: Final = re.compile(r'\bresource_metadata="([!#-~]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A bearer token. expires_in_s: from its receipt."""

    value: str
    expires_in_s: int


def well_known_url(url: str, path: str) -> str:
    """Return the address of a well-known document: its path between host and path of `url`.

    Source: RFC 8414 §3.1, RFC 9728 §3.1. Raises nothing for what `metadata_url` accepted.
    """
    parts = urlsplit(url)
    tail = parts.path.removesuffix("/")
    return urlunsplit((parts.scheme, parts.netloc, path + tail, parts.query, ""))


def resource_metadata_of(challenge: str | None) -> str | None:
    """Return where a 401's `WWW-Authenticate` says the resource's metadata is (RFC 9728 §5.1)."""
    found = _RESOURCE_METADATA.search(challenge or "")
    return found.group(1) if found else None


def parse_authorization_server(body: bytes, issuer: str) -> str:
    """Return the token endpoint that an authorization server's metadata names.

    Raises StreamError, also when the document is about another issuer (RFC 8414 §3.3).
    """
    members = parse_object(body, bytes_max=DOCUMENT_BYTES_MAX, error=_bad_document)
    if members.get("issuer") != issuer:
        raise _bad_document("issuer is not the one asked for")
    endpoint = members.get("token_endpoint")
    if not isinstance(endpoint, str) or not endpoint.startswith(("https://", "http://")):
        raise _bad_document("token_endpoint is no http(s) URL")
    return endpoint


def parse_scopes(body: bytes) -> str | None:
    """Return the scopes that a protected resource's metadata names, joined; None when it does not.

    Raises StreamError. Source: RFC 9728 §2; requirement INT-22.
    """
    members = parse_object(body, bytes_max=DOCUMENT_BYTES_MAX, error=_bad_document)
    scopes = members.get("scopes_supported")
    if not isinstance(scopes, list) or len(scopes) > SCOPES_MAX:
        return None
    words = [scope for scope in scopes if isinstance(scope, str) and _VISIBLE.fullmatch(scope)]
    # A resource may list scopes of other interfaces too; ours are reserved by their beginning.
    ours = [scope for scope in words if scope.startswith("ssf")]
    return " ".join(ours or words) or None


def render_token_request(
    scope: str | None, *, client_id: str, client_secret: str, in_body: bool
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a client_credentials request.

    in_body: client_secret_post, else client_secret_basic. Raises nothing.
    Source: RFC 6749 §2.3.1, §4.4.2; requirement CRC-3.
    """
    form = {"grant_type": "client_credentials"}
    if scope:
        form["scope"] = scope
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "accept": "application/json",
    }
    if in_body:
        form |= {"client_id": client_id, "client_secret": client_secret}
    else:
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return urlencode(form).encode(), headers


def parse_token(body: bytes) -> AccessToken:
    """Read a token answer. Raises StreamError. Source: RFC 6749 §5.1, RFC 6750 §2.1."""
    members = parse_object(body, bytes_max=DOCUMENT_BYTES_MAX, error=_bad_document)
    value = members.get("access_token")
    if (
        not isinstance(value, str)
        or len(value) > TOKEN_CHARS_MAX
        or not _VISIBLE.fullmatch(value)
        or str(members.get("token_type", "bearer")).lower() != "bearer"
    ):
        raise _bad_document("no bearer token")
    return AccessToken(value=value, expires_in_s=_expires(members.get("expires_in")))


def error_of(body: bytes) -> str | None:
    """Return the `error` of a refused token request, None when there is none to be read."""
    try:
        error = parse_object(body, bytes_max=DOCUMENT_BYTES_MAX, error=_bad_document).get("error")
    except StreamError:
        return None
    return error[:100] if isinstance(error, str) else None


def _expires(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return EXPIRES_DEFAULT_S
    return int(min(value, EXPIRES_MAX_S))


def _bad_document(description: str) -> StreamError:
    return StreamError("invalid_response", f"OAuth: {description}", requirement="CRC-3")
