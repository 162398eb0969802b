"""What an admin request works with: who asks, for which tenant, with what at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request

from hub.admin.roles import check_owner, check_write
from hub.node import Node
from hub.tenancy import DEFAULT_TENANT, NOT_FOUND
from runtime.caller import Caller
from runtime.errors import NotFound

#: an admin object as it is shown: JSON members, times as datetimes
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """One admin request: who asks, for which tenant, with what at hand."""

    state: Any
    node: Node
    caller: Caller

    @property
    def tenant_id(self) -> str:
        """The tenant that is administered."""
        return self.caller.tenant_id

    @property
    def now(self) -> datetime:
        """The present moment."""
        return self.node.clock.now()

    @property
    def base(self) -> str:
        """The tenant's issuer, which its URLs begin with."""
        issuer: str = self.state.issuer(self.tenant_id)
        return issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What part of a list is wanted. after: the id the page before ended with."""

    after: str
    limit: int
    filters: Mapping[str, str]


def admin_of(request: Request, *, write: bool, is_owners: bool = False) -> Admin:
    """Return the context of a request. Raises Unauthorized, Forbidden.

    is_owners: what belongs to the whole hub. It is at the root issuer alone (NotFound elsewhere).
    """
    caller: Caller = request.state.caller
    if is_owners and caller.tenant_id != DEFAULT_TENANT:
        raise NotFound(NOT_FOUND)
    caller.require(*(("admin.write",) if write else ("admin.read", "admin.write")))
    if is_owners:
        check_owner(caller)
    if write:
        check_write(caller, request.scope["path"])
    return Admin(state=request.app.state, node=request.app.state.node, caller=caller)


def without_tenant(document: Document) -> Document:
    """Return a document without its tenant, which the address names already."""
    return {name: value for name, value in document.items() if name != "tenant_id"}
