"""Tenants in the URL: one front strips them off, one route table serves them all.

    /t/{tenant}/ssf/streams                       -> /ssf/streams, scope["tenant"] = tenant
    /.well-known/ssf-configuration/t/{tenant}     -> /.well-known/ssf-configuration
    anything else                                 -> tenant `default`

A tenant that is unknown or suspended answers 404 (contracts §4).
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from hub.errors import problem_response
from hub.store import Tenant
from runtime.feed import ConfigCache

DEFAULT_TENANT: Final = "default"
#: the same words as for a path that nobody serves: a stranger learns no tenant's name (PD-7)
NOT_FOUND: Final = "Not found."
TENANT_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PREFIXED: Final = re.compile(r"/t/([^/]+)(/.*)?")
_WELL_KNOWN: Final = re.compile(r"(/\.well-known/[^/]+)/t/([^/]+)(/.*)?")


class TenantFront:
    """Pure ASGI middleware that recognises the tenant of a request."""

    def __init__(
        self, app: ASGIApp, *, tenants: ConfigCache[dict[str, Tenant]], issuer: str
    ) -> None:
        """issuer: of the tenant `default`, which the others' begin with."""
        self._app = app
        self._tenants = tenants
        self._resource = f"{issuer}/.well-known/oauth-protected-resource"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set `scope["tenant"]` and the path without it, or answer 404."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        inner = self.inside(scope)
        tenant_id: str = inner["tenant"]
        if tenant_id != DEFAULT_TENANT and not await self._is_active(tenant_id):
            await problem_response(inner, 404, NOT_FOUND)(scope, receive, send)
            return
        await self._app(inner, receive, send)

    def inside(self, scope: Scope) -> Scope:
        """Return the request as the tenant's own routes see it. Raises nothing.

        Whether there is such a tenant is another question.
        """
        tenant_id, path = split_tenant(scope["path"])
        return {
            **scope,
            "tenant": tenant_id,
            "resource_metadata": self._document_of(tenant_id),
            "path": path,
            "raw_path": path.encode(),
        }

    def is_known(self, tenant_id: str) -> bool:
        """Return whether a tenant is active as far as memory tells; False: it has to be read."""
        if tenant_id == DEFAULT_TENANT:
            return True
        tenant = (self._tenants.current("*") or {}).get(tenant_id)
        return tenant is not None and tenant.status == "active"

    def _document_of(self, tenant_id: str) -> str:
        """Return where it says who gives tokens: between host and path (RFC 9728 §3.1)."""
        return self._resource if tenant_id == DEFAULT_TENANT else f"{self._resource}/t/{tenant_id}"

    async def _is_active(self, tenant_id: str) -> bool:
        if not TENANT_PATTERN.fullmatch(tenant_id):
            return False
        tenant = (await self._tenants.get("*")).get(tenant_id)
        return tenant is not None and tenant.status == "active"


def split_tenant(path: str) -> tuple[str, str]:
    """Return the tenant and the path without it. Raises nothing.

    `/t/default/…` is refused as unknown: a tenant has one address.
    """
    if not path.startswith(("/t/", "/.well-known/")):
        return DEFAULT_TENANT, path
    if match := _PREFIXED.fullmatch(path):
        tenant, rest = match[1], match[2] or "/"
        return ("" if tenant == DEFAULT_TENANT else tenant), rest
    if match := _WELL_KNOWN.fullmatch(path):
        tenant, rest = match[2], match[1] + (match[3] or "")
        return ("" if tenant == DEFAULT_TENANT else tenant), rest
    return DEFAULT_TENANT, path


def tenant_issuer(issuer: str, tenant_id: str) -> str:
    """Return the issuer of a tenant: the root for `default`, else `{issuer}/t/{tenant}`."""
    return issuer if tenant_id == DEFAULT_TENANT else f"{issuer}/t/{tenant_id}"
