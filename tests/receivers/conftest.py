"""A hub's intake in one process: real database, real writer, real registry, a vendor's keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from receivers import store
from receivers.keys import IssuerKeys
from receivers.model import (
    AcceptOutcome,
    Provider,
    ProviderProfile,
    ProviderSettings,
    StoredSignal,
    build_profile,
)
from receivers.registry import service as registry
from receivers.registry.service import RegistryDeps
from receivers.service import ReceiversDeps, accept
from runtime.clock import FixedClock, from_epoch_s
from runtime.database import Database
from runtime.feed import ConfigFeed
from runtime.notify import Notifier
from runtime.secrets import SecretBox
from runtime.writer import LocalWriter
from tests.receivers import vendor
from tests.receivers.vendor import JWKSHost

TENANT = "default"

#: for tests in which the database plays no part
on_one_engine = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="session")
def rsa() -> JWK:
    return vendor.rsa_key("rsa-1")


@pytest.fixture(scope="session")
def next_rsa() -> JWK:
    return vendor.rsa_key("rsa-2")


@pytest.fixture(scope="session")
def ec() -> JWK:
    return vendor.ec_key("ec-1")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(from_epoch_s(vendor.NOW_S))


@pytest.fixture
async def jwks_host(rsa: JWK, ec: JWK) -> JWKSHost:
    return JWKSHost(rsa, ec)


@pytest.fixture
def settings() -> ProviderSettings:
    return ProviderSettings(
        name="mdm",
        issuer=vendor.ISSUER,
        audiences=(vendor.AUDIENCE,),
        jwks_uri=vendor.JWKS_URI,
    )


@dataclass
class Intake:
    """What the tests drive."""

    database: Database
    admin: RegistryDeps
    deps: ReceiversDeps
    clock: FixedClock
    settings: ProviderSettings

    async def register(
        self, *, tenant_id: str = TENANT, authorization_header: str | None = None, **changes: Any
    ) -> Provider:
        return await registry.add_provider(
            self.admin,
            replace(self.settings, **changes),
            tenant_id=tenant_id,
            authorization_header=authorization_header,
        )

    async def profile(self, **changes: Any) -> ProviderProfile:
        return build_profile(await self.register(**changes), authorization_header=None)

    async def accept(self, raw: bytes, provider: ProviderProfile) -> AcceptOutcome:
        return await accept(
            raw,
            provider=provider,
            now=self.clock.now(),
            keys=self.deps.keys,
            writer=self.deps.writer,
        )

    async def stored(self, tenant_id: str = TENANT) -> list[StoredSignal]:
        async with self.database.snapshot() as connection:
            return await store.list_signals(connection, tenant_id)


@pytest.fixture
async def intake(
    database: Database, clock: FixedClock, jwks_host: JWKSHost, settings: ProviderSettings
) -> AsyncIterator[Intake]:
    secrets = SecretBox("k" * 32)
    notifier = Notifier()
    writer = LocalWriter(database, notifier)
    committing = asyncio.create_task(writer.run())
    yield Intake(
        database=database,
        admin=RegistryDeps(database=database, secrets=secrets, clock=clock),
        deps=ReceiversDeps(
            profiles=registry.profile_cache(ConfigFeed(database, notifier), database, secrets),
            keys=IssuerKeys(jwks_host),
            writer=writer,
            clock=clock,
        ),
        clock=clock,
        settings=settings,
    )
    committing.cancel()
    await asyncio.wait([committing])
