"""Getting an access token: discovery by RFC 8414, client credentials by RFC 6749 §4.4."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

from conformance.suite.http import Answer, Asker, AskError
from conformance.suite.transmitter.options import Credentials
from ssf.errors import RemoteProtocolError
from ssf.jose import sign, signing_key
from ssf.strict_json import parse_object

FORM: Final = "application/x-www-form-urlencoded"
AS_WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"
RESOURCE_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME_S: Final = 60
KEY_BYTES_MAX: Final = 64 * 1024


def well_known(url: str, path: str) -> str:
    """Insert a well-known path between host and path of a URL. Source: RFC 8414 §3.1."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path + parts.path.removesuffix("/"), "", ""))


async def as_metadata(asker: Asker, issuer: str) -> Mapping[str, Any]:
    """Return the metadata of the authorization server, empty without. Raises AskError."""
    for path in (AS_WELL_KNOWN, "/.well-known/openid-configuration"):
        answer = await asker.ask("GET", well_known(issuer, path))
        if answer.status == 200 and answer.object:  # noqa: PLR2004 - OK
            return answer.object
    return {}


async def resource_metadata(asker: Asker, resource: str) -> Mapping[str, Any]:
    """Return the protected resource metadata, empty without. Source: RFC 9728 §3."""
    answer = await asker.ask("GET", well_known(resource, RESOURCE_WELL_KNOWN))
    return answer.object if answer.status == 200 else {}  # noqa: PLR2004 - OK


async def find_token_endpoint(asker: Asker, issuer: str) -> str:
    """Find where tokens are given: by the resource's metadata, else at the issuer itself.

    Raises AskError when neither says so.
    """
    servers = (await resource_metadata(asker, issuer)).get("authorization_servers")
    server = servers[0] if isinstance(servers, list) and servers else issuer
    found = (await as_metadata(asker, str(server))).get("token_endpoint")
    if not isinstance(found, str):
        raise AskError(
            f"no token endpoint found for {server}: name it with --token-endpoint, or use --token"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How a client shows who it is: members of the form, and headers."""

    form: Mapping[str, str]
    headers: Mapping[str, str]


def prove(credentials: Credentials, audience: str) -> Proof:
    """Prove who we are, by a signed assertion where there is a key, else by the secret.

    audience: what an assertion names the server by: its token endpoint.
    Raises OSError, SharedSignalsError for a key that cannot be read.
    Source: RFC 6749 §2.3.1, RFC 7523 §2.2, §3; requirement OA-2.
    """
    user, secret = credentials.client_id or "", credentials.client_secret or ""
    if credentials.client_key is not None:
        assertion = _assertion(credentials.client_key, user, audience)
        form = {"client_id": user, "client_assertion_type": ASSERTION_TYPE}
        return Proof(form={**form, "client_assertion": assertion}, headers={})
    pair = f"{quote(user, safe='')}:{quote(secret, safe='')}".encode()
    basic = "Basic " + base64.b64encode(pair).decode()
    return Proof(form={"client_id": user}, headers={"authorization": basic})


def _assertion(file: Path, client_id: str, audience: str) -> str:
    jwk = parse_object(file.read_bytes(), bytes_max=KEY_BYTES_MAX, error=_no_key)
    now = int(time.time())  # noqa: TID251 - a client's own clock
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + ASSERTION_LIFETIME_S,
        "jti": secrets.token_urlsafe(16),
    }
    return sign(msgspec.json.encode(claims), signing_key(jwk), typ="JWT").decode()


def _no_key(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("unusable_key", f"--client-key: {description}", requirement="OA-2")


async def post_form(asker: Asker, url: str, form: Mapping[str, str], proof: Proof) -> Answer:
    """Send a form with the proof of a client. Raises AskError."""
    return await asker.ask(
        "POST",
        url,
        body=urlencode({**form, **proof.form}).encode(),
        headers={"content-type": FORM, **proof.headers},
    )


async def fetch_token(
    asker: Asker, issuer: str, credentials: Credentials, *, proof: Proof | None = None
) -> Answer:
    """Ask for a token. proof: one that was made before. Raises AskError when there is no answer."""
    endpoint = credentials.token_endpoint or await find_token_endpoint(asker, issuer)
    form = {"grant_type": "client_credentials", "scope": credentials.scope}
    return await post_form(asker, endpoint, form, proof or prove(credentials, endpoint))
