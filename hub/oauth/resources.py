"""Protected resources: what an access token may be meant for, and where that is described.

A tenant's issuer stands for all it serves; `{issuer}/ssf` and each endpoint below it are resources
of their own, because clients compare `resource` with the address they called (RFC 9728 §3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.routing import Route

import transmitters.routes

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
SSF: Final = "/ssf"
PATH_CHARACTERS_MAX: Final = 200
_ENDPOINTS: Final = tuple(
    route.path_regex
    for route in transmitters.routes.ROUTES
    if isinstance(route, Route) and route.path.startswith(f"{SSF}/")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """How an access token is presented: what it is to open, and with which certificate.

    path: of the request, without the tenant. thumbprint: None when no certificate came along.
    """

    path: str
    thumbprint: str | None = None


def is_resource(path: str) -> bool:
    """Tell whether a path below the issuer is a resource of its own; "" is the issuer itself."""
    if len(path) > PATH_CHARACTERS_MAX:
        return False
    return path in {"", SSF} or any(endpoint.match(path) for endpoint in _ENDPOINTS)


def resource_identifier(issuer: str, path: str) -> str:
    """Return the identifier of a resource. Source: RFC 9728 §1.2 (a URL without fragment)."""
    return issuer + quote(path, safe="/:")


def is_meant_for(audiences: frozenset[str], issuer: str, path: str | None) -> bool:
    """Tell whether a token for these audiences opens a request to `path`; None: to any path.

    A token for the issuer opens all that its scopes allow, one for a resource only that and what
    is below it. Source: RFC 9068 §4, RFC 8707 §2; contracts: each resource is accepted as `aud`.
    """
    if issuer in audiences:
        return True
    if path is None:
        return any(
            audience.startswith(issuer + SSF) and is_resource(audience.removeprefix(issuer))
            for audience in audiences
        )
    if not (path == SSF or path.startswith(f"{SSF}/")):
        return False
    return not audiences.isdisjoint({issuer + SSF, resource_identifier(issuer, path)})


def metadata_url(document: str, path: str) -> str:
    """Return where the resource behind a request is described.

    document: of the issuer. The path is quoted: it comes from whoever asks, and goes into a header.
    """
    if path.startswith(f"{SSF}/") and is_resource(path):
        return resource_identifier(document, path)
    return document
