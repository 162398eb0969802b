"""What the routes of risk need from the assembly: `hub` fills it, risk knows no sibling."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from risk.contexts.model import NetworkRecord
from risk.inline.service import SETTLE_STEP_UP
from risk.inline.step_ups import StepUp
from risk.ips.memory import IPClaims
from risk.ips.model import Reporter
from risk.ips.throttle import Refusals
from risk.lookups.service import HasApp
from risk.model import Assessment, Level
from risk.sessions.model import PutSession, PutSessionResult
from risk.sessions.service import PUT_SESSION
from risk.sql.store import Connection
from runtime.audit import AddAudit
from runtime.caller import Caller
from runtime.clock import Clock
from runtime.database import Database
from runtime.writer import Operation, Writer


class Respond(Protocol):
    """Turns assessments into responses, in the transaction of the assessment."""

    async def __call__(
        self, connection: Connection, assessments: Sequence[Assessment], /, *, now: datetime
    ) -> None:
        """Plan and publish what follows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskDeps:
    """Dependencies of the routes, in `app.state.risk`.

    lock: excludes other changes of risk in these tenants until the transaction ends. caps:
    (tenant, issuer) to the highest level, for these tenants. responded: called after the commit of
    a response. app_issuer: (tenant, app id) to the issuer of the app's sessions, None if it has
    none. vouches: whether a caller may say how users proved themselves, beyond its own sessions.
    record_of: what is known of an address. has_app: whether an app of this id exists. ip_claims:
    what is said of addresses. reporter_of: (tenant, client id) to what the client's word about
    addresses counts. put_session: writes a session; whoever replaces it does so to let signals that
    wait for `new_alias_keys` be assessed in the same transaction. settle_step_up: hears how one
    ended, and what ends with it. catch_up: returns when this process decides by what was committed
    before.
    """

    db: Database
    writer: Writer
    clock: Clock
    lock: Callable[[Connection, set[str]], Awaitable[None]]
    caps: Callable[[Connection, set[str]], Awaitable[Mapping[tuple[str, str], Level | None]]]
    respond: Respond
    add_audit: AddAudit
    responded: Callable[[], None]
    app_issuer: Callable[[str, str], Awaitable[str | None]]
    vouches: Callable[[Caller], Awaitable[bool]]
    record_of: Callable[[str], NetworkRecord]
    has_app: HasApp
    ip_claims: IPClaims
    reporter_of: Callable[[str, str], Awaitable[Reporter]]
    catch_up: Callable[[], Awaitable[None]]
    ip_refusals: Refusals = field(default_factory=Refusals)
    put_session: Operation[PutSession, PutSessionResult] = PUT_SESSION
    settle_step_up: Operation[StepUp, str] = SETTLE_STEP_UP
