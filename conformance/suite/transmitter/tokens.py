"""Getting an access token: discovery by RFC 8414, client credentials by RFC 6749 §4.4."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from conformance.suite.http import Answer, Asker, AskError
from conformance.suite.transmitter.options import Credentials

FORM = "application/x-www-form-urlencoded"
AS_WELL_KNOWN = "/.well-known/oauth-authorization-server"
RESOURCE_WELL_KNOWN = "/.well-known/oauth-protected-resource"


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


async def resource_metadata(asker: Asker, issuer: str) -> Mapping[str, Any]:
    """Return the protected resource metadata, empty without. Source: RFC 9728 §3."""
    answer = await asker.ask("GET", well_known(issuer, RESOURCE_WELL_KNOWN))
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


async def fetch_token(asker: Asker, issuer: str, credentials: Credentials) -> Answer:
    """Ask for a token with client_secret_basic. Raises AskError when there is no answer."""
    endpoint = credentials.token_endpoint or await find_token_endpoint(asker, issuer)
    user, secret = credentials.client_id or "", credentials.client_secret or ""
    pair = f"{quote(user, safe='')}:{quote(secret, safe='')}".encode()
    form = {"grant_type": "client_credentials", "scope": credentials.scope, "client_id": user}
    return await asker.ask(
        "POST",
        endpoint,
        body=urlencode(form).encode(),
        headers={
            "content-type": FORM,
            "authorization": "Basic " + base64.b64encode(pair).decode(),
        },
    )
