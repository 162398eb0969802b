"""A hub's dealings with one upstream, in one process: real database, writer, leases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import receivers.upstreams.service as upstreams
from receivers.registry import service as registry
from receivers.upstreams.client import StreamClient
from receivers.upstreams.model import Action, Auth, Upstream, UpstreamSettings
from receivers.upstreams.polling import Poller
from receivers.upstreams.service import UpstreamDeps
from receivers.upstreams.tokens import Tokens
from receivers.upstreams.worker import Job, UpstreamSource
from runtime.queue import LEASE, Fence, LeaseKeeper, LeaseRequest
from tests.receivers.conftest import TENANT, Intake
from tests.receivers.transmitter import Transmitter

ISSUER = "https://hub.example"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"


@dataclass
class Dealings:
    """What the tests drive: orders are placed, time passes, the delivery process takes turns."""

    intake: Intake
    outside: Transmitter
    deps: UpstreamDeps
    source: UpstreamSource
    leases: LeaseKeeper
    upstream_id: str = ""

    @classmethod
    def begin(cls, intake: Intake, outside: Transmitter) -> Dealings:
        writer, clock = intake.deps.writer, intake.clock
        box = intake.admin.secrets
        leases = LeaseKeeper("upstreams", "here", writer=writer, clock=clock)
        tokens = Tokens(outside, box=box, clock=clock)
        return cls(
            intake=intake,
            outside=outside,
            deps=UpstreamDeps(database=intake.database, secrets=box, clock=clock),
            source=UpstreamSource(
                intake.database,
                profiles=_Profiles(intake),
                poller=Poller(
                    outside, tokens=tokens, keys=intake.deps.keys, writer=writer, clock=clock
                ),
                client=StreamClient(outside, tokens=tokens, clock=clock),
                writer=writer,
                clock=clock,
                leases=leases,
                issuer=lambda _tenant: ISSUER,
            ),
            leases=leases,
        )

    async def add(
        self, *, secret: str | None = None, header: str | None = None, **settings: Any
    ) -> Upstream:
        provider = await self.intake.register(authorization_header=header)
        wanted = {"name": "mdm", "events_requested": (SESSION_REVOKED,), **settings}
        upstream = await upstreams.add_upstream(
            self.deps,
            UpstreamSettings(**wanted),
            tenant_id=TENANT,
            provider_id=provider.provider_id,
            secret=secret,
        )
        self.upstream_id = upstream.upstream_id
        return upstream

    async def add_polled(self, **settings: Any) -> Upstream:
        """Add one whose poll address is known, with a fixed Authorization value."""
        self.outside.static_authorization = "Bearer fixed"
        wanted = {
            "auth": Auth.HEADER,
            "endpoint_url": f"{self.outside.issuer}/events?stream_id=f67e39a0",
        }
        return await self.add(secret="Bearer fixed", **wanted | settings)

    async def now(self) -> Upstream:
        return await upstreams.get_upstream(self.deps, TENANT, self.upstream_id)

    async def order(self, action: Action, **arguments: Any) -> Upstream:
        """Place an order and let the delivery process carry it out."""
        await upstreams.place_order(
            self.deps, action, tenant_id=TENANT, upstream_id=self.upstream_id, arguments=arguments
        )
        await self.turn()
        return await self.now()

    async def turn(self, *, jobs: set[Job] | None = None, settle: bool = True) -> list[Job]:
        """Do everything that is due now, once; unsettled as if the process died before."""
        await self.leases.renew()
        works = await self.source.due(tuple(range(256)), self.intake.clock.now(), 100, ())
        done = []
        for work in works:
            if jobs is not None and work.job not in jobs:
                continue
            settlement = await self.source.perform(work, self.leases.fence(work.upstream.bucket))
            if settle:
                await self.intake.deps.writer.submit(self.source.settle, settlement)
            done.append(work.job)
        return done

    async def stale_fence(self) -> Fence:
        """Return a fence of before another process took over."""
        await self.leases.renew()
        bucket = (await self.now()).bucket
        old = self.leases.fence(bucket)
        self.pass_time(seconds=6)
        now_s = self.intake.clock.now().timestamp()
        other = LeaseRequest(kind="upstreams", owner="there", now_s=now_s, fresh=True)
        await self.intake.deps.writer.submit(LEASE, other)
        return old

    def pass_time(self, **by: float) -> None:
        self.intake.clock.advance(timedelta(**by).total_seconds())


class _Profiles:
    """Profiles as they are at this moment."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def get(self, tenant_id: str, *, fresh: bool = False) -> Any:
        _ = fresh
        return await registry.load_profiles(
            self._intake.database, self._intake.admin.secrets, tenant_id
        )
