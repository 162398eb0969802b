"""What an admin may write: roles of contracts §8, each with all that the one before may.

    viewer ─▶ analyst (+ feedback) ─▶ responder (+ contain, release, retry, redrive)
      ─▶ policy (+ policies, zones, mappings) ─▶ admin (all of a tenant) ─▶ owner (tenants)

A client without a role may do what its scopes say: that is how tokens of tools have always been.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from runtime.caller import Caller
from runtime.errors import Forbidden

Role = Literal["viewer", "analyst", "responder", "policy", "admin", "owner"]
#: in ascending order
ROLES: Final = ("viewer", "analyst", "responder", "policy", "admin", "owner")
_READS: Final = frozenset({"admin.read", "risk.read", "sessions.read"})
#: the scopes that go with a role: what it may read, give feedback on, write
ROLE_SCOPES: Final = {
    "viewer": _READS,
    "analyst": _READS | {"risk.write"},
    **dict.fromkeys(ROLES[2:], _READS | {"risk.write", "admin.write"}),
}
#: the kinds that a role may write; `admin` and `owner`: see `may_write`
_RESPONDER: Final = frozenset(
    {
        "containments",
        "session-logouts",
        "tasks",
        "deliveries",
        "dead-letters",
        "unmatched",
        "ingest-errors",
        "signals",
    }
)
_POLICY: Final = _RESPONDER | {
    "attribute-rules",
    "behaviours",
    "policies",
    "zones",
    "mappings",
    "relays",
}
#: what a responder may do with objects that are not theirs to change
_RESPONDER_ACTIONS: Final = frozenset(
    {("streams", "replay"), ("providers", "quarantine"), ("providers", "lift")}
)
_OWNER_ONLY: Final = frozenset({"tenants"})
_KIND: Final = re.compile(r"/admin/v1/([a-z-]+)(?:/[^/]+/([a-z-]+)$)?")


def may_write(role: str | None, kind: str) -> bool:
    """Tell whether a role may write a kind of admin object. Unknown roles may not write."""
    if role is None or role == "owner":
        return True
    if role == "admin":
        return kind not in _OWNER_ONLY
    writable = {"responder": _RESPONDER, "policy": _POLICY}.get(role, frozenset())
    return kind in writable


def check_write(caller: Caller, path: str) -> None:
    """Pass when the caller's role may write what the path names. Raises Forbidden."""
    named = _KIND.match(path)
    kind, action = (named[1], named[2]) if named else ("", None)
    may_act = caller.role in {"responder", "policy"} and (kind, action) in _RESPONDER_ACTIONS
    if not may_act and not may_write(caller.role, kind):
        raise Forbidden(f"The role {caller.role} may not do this.")


def check_owner(caller: Caller) -> None:
    """Pass when the caller may see what belongs to the whole hub. Raises Forbidden."""
    if caller.role not in {None, "owner"}:
        raise Forbidden(f"The role {caller.role} may not do this.")


def check_grant(caller: Caller, role: str | None, scopes: frozenset[str]) -> None:
    """Pass when the caller may give, change or take what a client has. Raises Forbidden.

    Whoever has a role gives none above it, and no power to write outside of one.
    """
    if caller.role is None or (role is None and "admin.write" not in scopes):
        return
    if role is None or ROLES.index(role) > ROLES.index(caller.role):
        raise Forbidden(f"The role {caller.role} cannot give more than it has: name a role.")
