"""Who is asking: the authenticated caller of a request, as the routes see it."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import Forbidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One authenticated party of one tenant, placed into `request.state.caller` by `hub.auth`.

    role: what of the admin API it may write; None for all that its scopes allow.
    """

    tenant_id: str
    client_id: str
    scopes: frozenset[str]
    app_id: str | None = None
    role: str | None = None

    def require(self, *scopes: str) -> None:
        """Pass when the caller holds any of `scopes`; raises Forbidden naming the first one."""
        if self.scopes.isdisjoint(scopes):
            raise Forbidden(
                f"The access token lacks the scope {' or '.join(scopes)}.", scope=scopes[0]
            )
