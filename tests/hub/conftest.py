"""A whole hub in one process: real database, real application, the core's steps on call."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jwcrypto.jwk import JWK
from starlette.types import ASGIApp

import runtime.store
from hub import store
from hub.app import make_app
from hub.auth import SCOPES, TOKEN_PREFIX, token_hash
from hub.core import LEADER_BUCKET, LEASE_KIND, Core
from hub.delivery import sources
from hub.node import Node, ProcessConfig, open_node
from hub.operations import all_operations
from hub.store import AuditEntry, Client
from runtime import ids
from runtime.clock import FixedClock, SystemClock
from runtime.database import Database
from runtime.feed import bump
from runtime.keyring import PURPOSES
from runtime.outbound import OutboundAnswer, OutboundRequest
from runtime.queue import BUCKETS, LeaseKeeper
from runtime.secrets import SecretBox
from runtime.store import StoredKey
from tests.hub.commands import Forker, Served, Shell, new_database, served

ISSUER = "https://hub.example"
SECRET_KEY = "a secret key that is long enough, for tests only"
DEFAULT = "default"
ALL_SCOPES = tuple(sorted(SCOPES))
ROUNDS_MAX = 50

#: for tests that gain nothing from a second engine
ONE_ENGINE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Outside:
    """The world outside: answers every request alike, and remembers them; no network."""

    def __init__(self) -> None:
        self.requests: list[OutboundRequest] = []
        self.answers: dict[str, tuple[int, bytes]] = {}

    def answer(self, url_prefix: str, status: int, document: object = None) -> None:
        """Answer requests below `url_prefix` so from now on."""
        self.answers[url_prefix] = (status, b"" if document is None else _json(document))

    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        self.requests.append(request)
        matching = [prefix for prefix in self.answers if request.url.startswith(prefix)]
        status, body = self.answers[max(matching, key=len)] if matching else (204, b"")
        return OutboundAnswer(status=status, headers={}, body=body, duration_ms=1.0)


@dataclass
class Hub:
    """One hub: what its processes do, on call."""

    node: Node
    app: ASGIApp
    outside: Outside
    core: Core
    clock: FixedClock
    opened_at: datetime
    leases: dict[str, LeaseKeeper] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        return self.node.database

    async def token(
        self,
        *scopes: str,
        tenant: str = DEFAULT,
        app_id: str | None = None,
        name: str | None = None,
    ) -> str:
        """Make a client with these scopes (all by default) and return its token."""
        token = ids.new_token(TOKEN_PREFIX)
        client = Client(
            tenant_id=tenant,
            client_id=ids.new_id("cli"),
            name=name or ids.new_ulid(),
            token_hash=token_hash(token),
            scopes=scopes or ALL_SCOPES,
            app_id=app_id,
            created_at=self.clock.now(),
        )
        async with self.database.transaction() as connection:
            await store.add_client(connection, client)
            await bump(connection, tenant, "clients")
        return token

    async def add_tenant(self, tenant: str, *, status: str = "active") -> None:
        """Add a tenant with keys of its own."""
        async with self.database.transaction() as connection:
            await store.ensure_tenant(connection, tenant, name=tenant, now=self.clock.now())
            await connection.execute(
                store.tenants.update()
                .where(store.tenants.c.tenant_id == tenant)
                .values(status=status)
            )
            await bump(connection, "*", "tenants")
        await self.node.feed.refresh()

    def client(self, token: str | None = None, *, tenant: str = DEFAULT) -> httpx2.AsyncClient:
        """Return an HTTP client of the hub; paths are relative to the tenant's issuer."""
        base = ISSUER if tenant == DEFAULT else f"{ISSUER}/t/{tenant}"
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url=base, headers=headers
        )

    async def audit(self, tenant: str = DEFAULT) -> list[AuditEntry]:
        """Return the audit, oldest first."""
        async with self.database.snapshot() as connection:
            return (await store.list_audit(connection, tenant, before=None, limit=500))[::-1]

    async def settle(self) -> None:
        """Do what core and delivery do until nothing is due."""
        for _ in range(ROUNDS_MAX):
            busy = await self._core_step()
            busy = await self._delivery_step() or busy
            if not busy:
                return
        raise AssertionError("the hub does not come to rest")

    async def tend(self) -> None:
        """Do what core does for streams now and then."""
        keeper = await self._keeper(LEASE_KIND)
        assert not await self.core.tend_streams(keeper.fence(LEADER_BUCKET))

    async def remind(self) -> None:
        """Do what core does about users at HIGH now and then."""
        keeper = await self._keeper(LEASE_KIND)
        assert not await self.core.remind(keeper.fence(LEADER_BUCKET))

    async def sweep(self) -> None:
        """Take one page of each sweep that runs."""
        keeper = await self._keeper(LEASE_KIND)
        assert not await self.core.sweep(keeper.fence(LEADER_BUCKET))

    async def _core_step(self) -> bool:
        keeper = await self._keeper(LEASE_KIND)
        more = False
        for step in (self.core.handle_signals, self.core.publish_logouts, self.core.reassess):
            more = await step(keeper.fence(LEADER_BUCKET)) or more
        return more

    async def _delivery_step(self) -> bool:
        worked = False
        for source in sources(self.node, self.outside, self.outside):
            keeper = await self._keeper(source.kind)
            for work in await source.due(range(BUCKETS), self.clock.now(), 64, {}):
                fence = keeper.fence(source.bucket(work))
                settlement = await source.perform(work, fence)
                await self.node.writer.submit(source.settle, settlement)
                worked = True
        return worked

    async def _keeper(self, kind: str) -> LeaseKeeper:
        if kind not in self.leases:
            self.leases[kind] = LeaseKeeper(kind, "test", writer=self.node.writer, clock=self.clock)
        await self.leases[kind].renew()
        return self.leases[kind]


def config_for(database_url: str, **changes: Any) -> ProcessConfig:
    """Return the configuration of a process that does everything."""
    values: dict[str, Any] = {
        "role": "all",
        "index": 0,
        "node": "test",
        "issuer": ISSUER,
        "database_url": database_url,
        "core_socket": None,
        "secret_key": SECRET_KEY,
        "dev_insecure": False,
        "egress_allow": (),
        "extra_ca": None,
        "log_level": "error",
        # Machines that run tests are slow now and then; the deadline has tests of its own.
        "evaluate_deadline_ms": 10_000.0,
    }
    return ProcessConfig(**(values | changes))


@pytest.fixture(scope="session")
def signing_keys() -> tuple[StoredKey, ...]:
    """The signing keys of a tenant, made once: making them is the slow part."""
    box = SecretBox(SECRET_KEY)
    keys = []
    for purpose in PURPOSES:
        key = JWK.generate(kty="RSA", size=2048, kid=f"{purpose}-1", use="sig", alg="RS256")
        keys.append(
            StoredKey(
                tenant_id=DEFAULT,
                kid=key["kid"],
                purpose=purpose,
                alg="RS256",
                state="current",
                public_jwk=key.export_public(as_dict=True),
                private_jwk_sealed=box.seal(key.export_private()),
                created_at=SystemClock().now(),
                changed_at=SystemClock().now(),
            )
        )
    return tuple(keys)


@asynccontextmanager
async def opened_hub(
    database_url: str,
    signing_keys: Sequence[StoredKey],
    tenants: Sequence[str] = (DEFAULT,),
    *,
    outside: Outside | None = None,
) -> AsyncIterator[Hub]:
    """Open a hub on a database with all tables; every tenant has the same keys.

    outside: what answers its requests, by default something that answers all alike.
    """
    async with open_node(config_for(database_url), all_operations()) as opened:
        clock = FixedClock(SystemClock().now())
        node = dataclasses.replace(opened, clock=clock)
        outside = outside or Outside()
        hub = Hub(
            node=node,
            app=make_app(node, outside),
            outside=outside,
            core=Core(node),
            clock=clock,
            opened_at=clock.now(),
        )
        for tenant in tenants:
            await hub.add_tenant(tenant)
            async with node.database.transaction() as connection:
                for key in signing_keys:
                    await runtime.store.add_key(
                        connection, dataclasses.replace(key, tenant_id=tenant)
                    )
                await bump(connection, tenant, "keys")
        yield hub


@pytest.fixture
async def hub(database_url: str, signing_keys: tuple[StoredKey, ...]) -> AsyncIterator[Hub]:
    """Yield a hub with the tenant `default`, once per engine."""
    async with opened_hub(database_url, signing_keys) as opened:
        yield opened


@pytest.fixture
async def admin(hub: Hub) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield an HTTP client that may do everything in tenant `default`."""
    async with hub.client(await hub.token()) as client:
        yield client


@pytest.fixture
def shell(forker: Forker, tmp_path: Path) -> Shell:
    """Return a shell in an empty folder."""
    folder = tmp_path / "shell"
    folder.mkdir()
    return Shell(folder=folder, forker=forker)


@pytest.fixture(scope="session")
def first_command(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a first command makes up: database, secret key, signing keys."""
    folder = tmp_path_factory.mktemp("first")
    assert Shell(folder=folder, forker=forker).run("app", "list").code == 0
    return folder


@pytest.fixture
def used_folder(shell: Shell, first_command: Path) -> None:
    """Make the shell's folder one where a command ran before: a first one takes a second."""
    shutil.copytree(first_command, shell.folder, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def hub_process(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a hub that is served by real processes, with nothing configured."""
    with served(Shell(folder=tmp_path_factory.mktemp("served"), forker=forker)) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_hub_process(
    postgresql_server: str, forker: Forker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Yield a hub on PostgreSQL that is served by real processes."""
    with new_database(postgresql_server) as url:
        variables = {"SIGNALHUB_DATABASE_URL": url, "SIGNALHUB_SECRET_KEY": SECRET_KEY}
        shell = Shell(folder=tmp_path_factory.mktemp("served"), forker=forker, variables=variables)
        assert shell.run("migrate").code == 0
        with served(shell) as running:
            yield running


@pytest.fixture(scope="session", params=["hub_process", "postgresql_hub_process"])
def any_hub_process(request: pytest.FixtureRequest) -> Served:
    """Return a hub that is served by real processes, once per engine."""
    running: Served = request.getfixturevalue(request.param)
    return running


def _json(document: object) -> bytes:
    return json.dumps(document).encode()
