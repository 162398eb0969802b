"""The response side on a real database, with a real outbound client and real peers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from jwcrypto.jwk import JWK

from actions import service
from actions.model import (
    App,
    Containment,
    ContainmentOrder,
    ContainmentState,
    ContainmentView,
    Planned,
    Task,
    TaskKind,
    TaskView,
)
from actions.performing import Work
from actions.registry import service as registry
from actions.registry.model import WantedApp, WantedWebhook
from actions.settlement import TaskSettlement, settle_tasks
from actions.worker import TaskSource
from runtime.clock import FixedClock
from runtime.database import Database
from runtime.egress import EgressRules
from runtime.feed import ConfigFeed
from runtime.keyring import Keyring
from runtime.notify import Notifier
from runtime.queue import BUCKETS, LEASE, Fence, LeaseRequest
from runtime.secrets import SecretBox
from runtime.store import StoredKey, add_key
from runtime.streaming import StreamingOutbound
from tests.actions import kit
from tests.actions.services import Services, serving

ISSUER = "https://hub.example"
SECRET = "whsec_DIpKxQVMTAj3ms0QfPOOuxmzPc2zqNnC"
TURNS_MAX = 6000


@pytest.fixture(scope="session")
def signing_jwks() -> list[JWK]:
    return [
        JWK.generate(kty="RSA", size=2048, kid=f"{purpose}-1", use="sig", alg="RS256")
        for purpose in ("gtr", "logout")
    ]


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    async with serving() as running:
        yield running


@dataclass(slots=True, kw_only=True)
class Hub:
    """The response side of a hub in one process, its clock moved by hand."""

    database: Database
    clock: FixedClock
    box: SecretBox
    source: TaskSource
    epochs: dict[int, int]
    user_count: int = 1000

    async def add_app(self, wanted: WantedApp) -> App:
        async with self.database.transaction() as connection:
            return await registry.add_app(
                connection, wanted, tenant_id=kit.TENANT, box=self.box, now=self.clock.now()
            )

    async def add_webhook(self, url: str, **members: tuple[str, ...]) -> str:
        wanted = WantedWebhook(url=url, secret=SECRET, events=members.get("events"))
        async with self.database.transaction() as connection:
            made = await registry.add_webhook(
                connection, wanted, tenant_id=kit.TENANT, box=self.box, now=self.clock.now()
            )
        return made.webhook.webhook_id

    async def plan(self, *orders: ContainmentOrder) -> list[Planned]:
        async with self.database.transaction() as connection:
            return await service.plan(
                connection,
                orders,
                user_counts={kit.TENANT: self.user_count},
                now=self.clock.now(),
            )

    async def due(self, limit: int = 64, busy: Sequence[str] = ()) -> list[Work]:
        return list(await self.source.due(range(BUCKETS), self.clock.now(), limit, busy))

    def fence(self, work: Work) -> Fence:
        bucket = self.source.bucket(work)
        return Fence(kind="tasks", bucket=bucket, epoch=self.epochs[bucket])

    async def perform(self, *works: Work) -> list[TaskSettlement]:
        done = (self.source.perform(work, self.fence(work)) for work in works)
        return list(await asyncio.gather(*done))

    async def settle(self, *settlements: TaskSettlement) -> list[bool]:
        async with self.database.transaction() as connection:
            return await settle_tasks(connection, settlements)

    async def publish(self) -> list[Task]:
        async with self.database.transaction() as connection:
            tasks = await service.local_due(connection, self.clock.now())
            receipts = {task.task_id: ["str_1"] for task in tasks}
            await service.finish_local(connection, tasks, receipts, now=self.clock.now())
        return tasks

    async def turn(self) -> bool:
        """Do everything that is due now, once; return whether there was anything."""
        works = await self.due()
        if works:
            await self.settle(*await self.perform(*works))
        return bool(await self.publish() or works)

    async def work_off(self, *, for_s: float = 0.0) -> None:
        """Work until nothing is due, then let time pass in half seconds up to `for_s`."""
        end = self.clock.now() + timedelta(seconds=for_s)
        for _ in range(TURNS_MAX):
            if await self.turn():
                continue
            if self.clock.now() >= end:
                return
            self.clock.advance(0.5)
        pytest.fail("the work does not end")

    async def view(self, containment_id: str) -> ContainmentView:
        async with self.database.snapshot() as connection:
            return await service.get_containment(connection, kit.TENANT, containment_id)

    async def only(self) -> ContainmentView:
        """The one containment there is."""
        async with self.database.snapshot() as connection:
            (one,) = await service.list_containments(connection, kit.TENANT)
        return await self.view(one.containment_id)

    async def of_user(self, user_id: str = kit.USER) -> Containment | None:
        async with self.database.snapshot() as connection:
            return await service.containment_of_user(connection, kit.TENANT, user_id)

    async def state(self) -> ContainmentState:
        return (await self.only()).containment.state


def pick(view: ContainmentView, kind: TaskKind) -> TaskView:
    """The one task of a kind."""
    (found,) = [one for one in view.tasks if one.task.kind is kind]
    return found


@pytest.fixture
async def hub(database: Database, signing_jwks: list[JWK]) -> AsyncIterator[Hub]:
    clock = FixedClock(kit.NOW)
    box = SecretBox("a test secret of at least 32 characters")
    async with database.transaction() as connection:
        for jwk in signing_jwks:
            await add_key(connection, stored(jwk, box))
        (answer,) = await LEASE.handle(
            connection,
            [LeaseRequest(kind="tasks", owner="w", now_s=clock.now().timestamp(), fresh=True)],
        )
    outbound = StreamingOutbound(EgressRules(dev_insecure=True))
    source = TaskSource(
        database,
        outbound,
        keyring=Keyring(database, ConfigFeed(database, Notifier()), box),
        box=box,
        clock=clock,
        issuer=lambda _tenant_id: ISSUER,
    )
    yield Hub(database=database, clock=clock, box=box, source=source, epochs=dict(answer.held))
    await outbound.close()


def stored(jwk: JWK, box: SecretBox) -> StoredKey:
    kid = str(jwk.get("kid"))
    return StoredKey(
        tenant_id=kit.TENANT,
        kid=kid,
        purpose=kid.partition("-")[0],
        alg="RS256",
        state="current",
        public_jwk=jwk.export_public(as_dict=True),
        private_jwk_sealed=box.seal(jwk.export_private()),
        created_at=kit.NOW,
        changed_at=kit.NOW,
    )


async def contained(hub: Hub, services: Services, **app_changes: object) -> None:
    """An IdP, two apps and a webhook; the user is ordered to be contained."""
    await hub.add_app(kit.wanted_idp(services.base_url))
    await hub.add_app(kit.wanted_app("mail", services.base_url, "bcl"))
    await hub.add_app(
        replace(kit.wanted_app("pay", services.base_url, sensitivity=90), **app_changes)  # type: ignore[arg-type]  # test data
    )
    await hub.add_webhook(f"{services.base_url}/hook")
    await hub.plan(kit.order())
