"""A transmitter in one process: real database, real writer, real keys, clients that call it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import pytest
from jwcrypto.jwk import JWK

import runtime.store
from runtime.audit import AuditNote
from runtime.caller import Caller
from runtime.clock import FixedClock, from_epoch_s
from runtime.database import Database
from runtime.feed import ConfigFeed, bump
from runtime.keyring import Keyring
from runtime.notify import Notifier
from runtime.secrets import SecretBox
from runtime.store import StoredKey
from runtime.writer import ItemT, LocalWriter, Operation, ResultT
from ssf.events.registry import CAEP_BASE
from ssf.jose import CompactJWS, check_header, split_jws, verify
from ssf.jwks import parse_jwks
from ssf.poll import PollRequest, ReportedError
from ssf.stream import StreamConfiguration, parse_create
from transmitters import management, service, store
from transmitters.deps import StreamDefaults, TransmitterDeps
from transmitters.keys import SigningKeys
from transmitters.model import EventToPublish, Published, Stream
from transmitters.service import PolledSETs

TENANT = "default"
ISSUER = "https://hub.example"
NOW_S = 1_774_000_000
SESSION_REVOKED = CAEP_BASE + "session-revoked"
CREDENTIAL_CHANGE = CAEP_BASE + "credential-change"
ROSA = (
    {"format": "email", "email": "rosa.lind@green.example"},
    {"format": "iss_sub", "iss": "https://login.green.example", "sub": "u-20417"},
)
ALL_SCOPES = frozenset({"ssf.read", "ssf.manage", "ssf.manage.poll"})
PAYROLL = Caller(tenant_id=TENANT, client_id="cli_payroll", scopes=ALL_SCOPES, app_id="app_payroll")
WIKI = Caller(tenant_id=TENANT, client_id="cli_wiki", scopes=ALL_SCOPES, app_id="app_wiki")

#: for tests that gain nothing from a second engine
ONE_ENGINE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def signing_jwks() -> tuple[JWK, JWK]:
    """Two RSA keys, made once: making them is the slow part."""
    return (
        JWK.generate(kty="RSA", size=2048, kid="set-1", use="sig", alg="RS256"),
        JWK.generate(kty="RSA", size=2048, kid="set-2", use="sig", alg="RS256"),
    )


@dataclass
class CountingWriter:
    """The real writer, and how often it was asked to write."""

    inner: LocalWriter
    submits: int = 0

    async def submit(self, operation: Operation[ItemT, ResultT], item: ItemT) -> ResultT:
        self.submits += 1
        return await self.inner.submit(operation, item)


@dataclass
class World:
    """One tenant of one hub, as far as the transmitter goes."""

    db: Database
    clock: FixedClock
    notifier: Notifier
    writer: CountingWriter
    box: SecretBox
    feed: ConfigFeed
    keys: SigningKeys
    deps: TransmitterDeps
    jwks: tuple[JWK, JWK]
    stream_defaults: dict[str, StreamDefaults] = field(default_factory=dict)
    default_subjects: dict[str, str] = field(default_factory=dict)
    audited: list[AuditNote] = field(default_factory=list)

    async def stream(
        self, caller: Caller = PAYROLL, *, events: tuple[str, ...] = (SESSION_REVOKED,), **body: Any
    ) -> StreamConfiguration:
        """Create a stream; without a delivery it is a poll stream."""
        wanted = parse_create(
            msgspec.json.encode({"events_requested": events, **body}), allow_http=True
        )
        return await management.create_stream(wanted, caller=caller, deps=self.deps)

    async def push_stream(
        self, url: str, caller: Caller = PAYROLL, **delivery: Any
    ) -> StreamConfiguration:
        method = {"method": "urn:ietf:rfc:8935", "endpoint_url": url, **delivery}
        return await self.stream(caller, delivery=method)

    async def publish(self, *events: EventToPublish) -> list[Published]:
        """Publish in one transaction and wake whoever waits, as the pipeline does."""
        async with self.db.transaction() as connection:
            published = await service.publish(connection, events, self.clock.now())
        self.notifier.wake_all(("deliveries", "polls"))
        return published

    async def poll(
        self, stream_id: str, caller: Caller = PAYROLL, *, wait: bool = False, **request: Any
    ) -> PolledSETs:
        errors = {
            jti: ReportedError(err, "because") for jti, err in request.pop("errors", {}).items()
        }
        wanted = PollRequest(return_immediately=not wait, set_errs=errors, **request)
        return await service.poll(stream_id, wanted, caller=caller, deps=self.deps)

    async def rows(self) -> dict[str, Any]:
        """Return all deliveries by jti."""
        async with self.db.snapshot() as connection:
            result = await connection.execute(store.deliveries.select())
            return {row.jti: row for row in result}

    async def stored_stream(self, stream_id: str) -> Stream:
        async with self.db.snapshot() as connection:
            stream = await store.get_stream(connection, TENANT, stream_id=stream_id)
        assert stream is not None
        return stream

    async def set_stream(self, stream_id: str, **values: Any) -> None:
        """Change columns of a stream, as stream management will."""
        table = store.streams
        async with self.db.transaction() as connection:
            await connection.execute(
                table.update().where(table.c.stream_id == stream_id).values(**values)
            )

    async def add_key(self, key: JWK, *, state: str = "current") -> None:
        async with self.db.transaction() as connection:
            await runtime.store.add_key(
                connection,
                StoredKey(
                    tenant_id=TENANT,
                    kid=key["kid"],
                    purpose="set",
                    alg="RS256",
                    state=state,
                    public_jwk=key.export_public(as_dict=True),
                    private_jwk_sealed=self.box.seal(key.export_private()),
                    created_at=self.clock.now(),
                    changed_at=self.clock.now(),
                ),
            )
            await bump(connection, TENANT, "keys")
        await self.feed.refresh()

    async def rotate(self) -> None:
        """Retire the first key and sign with the second."""
        async with self.db.transaction() as connection:
            await runtime.store.set_key_state(
                connection, TENANT, "set-1", state="retired", now=self.clock.now()
            )
        await self.add_key(self.jwks[1])

    async def opened(self, raw: str | bytes) -> tuple[CompactJWS, dict[str, Any]]:
        """Verify a SET with the published keys; return it and its claims."""
        jws = split_jws(raw if isinstance(raw, bytes) else raw.encode())
        check_header(jws.header)
        document = msgspec.json.encode(await self.keys.published(TENANT))
        key = parse_jwks(document).find(jws.header.kid, jws.header.alg)
        assert key is not None
        verify(jws, key)
        claims: dict[str, Any] = msgspec.json.decode(jws.payload)
        return jws, claims


def event(key: str = "usr_rosa", **changes: Any) -> EventToPublish:
    """Return a session-revoked event about `key`; each has its own timestamp."""
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "event_type": SESSION_REVOKED,
        "payload": {
            "event_timestamp": NOW_S + next(_numbers),
            "initiating_entity": "policy",
            "reason_admin": {"en": "EDR verdict"},
        },
        "subjects": ROSA,
        "ordering_key": key,
        "txn": "cause-1",
    }
    return EventToPublish(**{**values, **changes})


@pytest.fixture
async def world(database: Database, signing_jwks: tuple[JWK, JWK]) -> AsyncIterator[World]:
    """Yield a transmitter on an empty database, once per engine."""
    clock = FixedClock(from_epoch_s(NOW_S))
    notifier = Notifier()
    local = LocalWriter(database, notifier)
    writing = asyncio.create_task(local.run())
    box = SecretBox("a secret key that is long enough, for tests only")
    feed = ConfigFeed(database, notifier)
    keys = SigningKeys(Keyring(database, feed, box))
    writer = CountingWriter(local)
    defaults_of: dict[str, StreamDefaults] = {}

    audited: list[AuditNote] = []
    defaults: dict[str, str] = {}

    async def stream_defaults(_tenant_id: str, app_id: str) -> StreamDefaults:
        return defaults_of.get(app_id, StreamDefaults())

    async def default_subjects(tenant_id: str) -> str:
        return defaults.get(tenant_id, "ALL")

    async def add_audit(
        _connection: store.Connection, note: AuditNote, /, *, now: datetime
    ) -> None:
        assert now == clock.now()
        audited.append(note)

    deps = TransmitterDeps(
        db=database,
        writer=writer,
        notifier=notifier,
        clock=clock,
        keys=keys,
        box=box,
        issuer=issuer_of,
        add_audit=add_audit,
        stream_defaults=stream_defaults,
        default_subjects=default_subjects,
        allow_http=True,
        long_poll_s=5.0,
    )
    world = World(
        db=database,
        clock=clock,
        notifier=notifier,
        writer=writer,
        box=box,
        feed=feed,
        keys=keys,
        deps=deps,
        jwks=signing_jwks,
        stream_defaults=defaults_of,
        default_subjects=defaults,
        audited=audited,
    )
    await world.add_key(signing_jwks[0])
    yield world
    keys.close()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


def issuer_of(tenant_id: str) -> str:
    return ISSUER if tenant_id == TENANT else f"{ISSUER}/t/{tenant_id}"
