"""The inbox on both databases: order, fairness, marks, subjects that appear later, bad rows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from receivers import store
from receivers.inbox import store as inbox_store
from receivers.model import (
    AcceptedSET,
    PendingSignal,
    Provider,
    ProviderMode,
    ProviderSettings,
    ProviderStatus,
    SignalMark,
    SignalState,
)
from receivers.registry import service as registry
from receivers.registry import store as registry_store
from receivers.store import ACCEPT
from runtime.clock import FixedClock
from runtime.database import Database
from runtime.errors import Invalid, NotFound
from runtime.ids import new_id
from tests.receivers import vendor
from tests.receivers.conftest import TENANT, Intake, on_one_engine


@pytest.fixture
async def provider(intake: Intake) -> Provider:
    return await intake.register(source_class="mdm", level_cap="MEDIUM")


def _item(provider: Provider, clock: FixedClock, jti: str, **changes: Any) -> AcceptedSET:
    good = AcceptedSET(
        tenant_id=provider.tenant_id,
        signal_id=new_id("sig"),
        provider_id=provider.provider_id,
        iss=provider.settings.issuer,
        jti=jti,
        event_type=vendor.DEVICE_COMPLIANCE_CHANGE,
        sub_id=b'{"format":"opaque","id":"LT-1"}',
        payload=b'{"current_status":"compliant"}',
        txn=None,
        raw="a.b.c",
        occurred_at=clock.now() - timedelta(hours=1),
        received_at=clock.now(),
        mode="enforce",
        state="received",
        detail=None,
    )
    return msgspec.structs.replace(good, **changes)


async def _add(database: Database, *items: AcceptedSET) -> list[bool]:
    async with database.transaction() as connection:
        return await store.add_to_inbox(connection, items)


async def _pending(database: Database, limit: int = 64) -> list[PendingSignal]:
    async with database.transaction() as connection:
        return await store.pending_signals(connection, limit)


async def _mark(database: Database, clock: FixedClock, *marks: SignalMark) -> None:
    async with database.transaction() as connection:
        await store.mark_signals(connection, marks, clock.now())


def _mark_of(item: AcceptedSET, state: SignalState, *alias_keys: str) -> SignalMark:
    return SignalMark(
        tenant_id=item.tenant_id,
        signal_id=item.signal_id,
        state=state,
        detail="a reason",
        alias_keys=alias_keys,
    )


async def test_a_pending_signal_tells_what_its_providers_word_is_worth(
    intake: Intake, provider: Provider
) -> None:
    item = _item(provider, intake.clock, "jti-1", txn="txn-1")
    await _add(intake.database, item)

    (signal,) = await _pending(intake.database)

    assert signal == PendingSignal(
        tenant_id=TENANT,
        signal_id=item.signal_id,
        provider_id=provider.provider_id,
        iss=vendor.ISSUER,
        jti="jti-1",
        event_type=vendor.DEVICE_COMPLIANCE_CHANGE,
        sub_id={"format": "opaque", "id": "LT-1"},
        payload={"current_status": "compliant"},
        txn="txn-1",
        occurred_at=item.occurred_at,
        received_at=item.received_at,
        source_class="mdm",
        level_cap="MEDIUM",
        mode=ProviderMode.ENFORCE,
        legacy_subject=False,
    )


async def test_duplicates_inside_one_batch_and_across_batches_are_told_apart(
    intake: Intake, provider: Provider
) -> None:
    clock = intake.clock
    first = [_item(provider, clock, jti) for jti in ("a", "b", "a", "c")]
    second = [_item(provider, clock, jti) for jti in ("c", "d")]

    assert await _add(intake.database, *first) == [True, True, False, True]
    assert await _add(intake.database, *second) == [False, True]


async def test_the_same_sets_in_another_order_at_the_same_time_are_stored_once(
    intake: Intake, provider: Provider
) -> None:
    """On PostgreSQL each of two batches could wait for a `jti` that the other one holds."""
    for attempt in range(20):
        jtis = [f"jti-{attempt}-{number:03}" for number in range(100)]
        there, back = (
            [_item(provider, intake.clock, jti) for jti in order] for order in (jtis, jtis[::-1])
        )
        new = await asyncio.gather(_add(intake.database, *there), _add(intake.database, *back))
        assert sum(map(sum, new)) == len(jtis)


async def test_a_value_the_database_cannot_store_fails_alone(
    intake: Intake, provider: Provider
) -> None:
    """SQLite stores anything; PostgreSQL knows no NUL in text and bounds its columns."""
    clock = intake.clock
    good = [_item(provider, clock, f"good-{n}") for n in range(3)]
    bad = [
        _item(provider, clock, "nul", txn="a\0b"),
        _item(provider, clock, "long", event_type="x" * 2000),
    ]
    answers = await asyncio.gather(
        *(intake.deps.writer.submit(ACCEPT, item) for item in (good[0], *bad, *good[1:])),
        return_exceptions=True,
    )

    assert [answers[0], *answers[3:]] == [True, True, True]
    if intake.database.dialect == "postgresql":
        assert [type(answer) for answer in answers[1:3]] == [Invalid, Invalid]
    assert {signal.jti for signal in await intake.stored()} >= {"good-0", "good-1", "good-2"}


async def test_pending_signals_come_oldest_first_and_bounded(
    intake: Intake, provider: Provider
) -> None:
    clock = intake.clock
    items = []
    for number in range(5):
        clock.advance(1)
        items.append(_item(provider, clock, f"jti-{number}"))
    await _add(intake.database, *reversed(items))

    assert [signal.jti for signal in await _pending(intake.database, limit=3)] == [
        "jti-0",
        "jti-1",
        "jti-2",
    ]


async def test_a_flood_at_one_tenant_leaves_room_for_the_others(
    intake: Intake, provider: Provider
) -> None:
    clock = intake.clock
    flood = [_item(provider, clock, f"jti-{number}") for number in range(50)]
    clock.advance(5)
    quiet = await intake.register(tenant_id="blue")
    late = [_item(quiet, clock, f"late-{number}") for number in range(3)]
    await _add(intake.database, *flood, *late)

    batch = await _pending(intake.database, limit=10)

    assert [signal.tenant_id for signal in batch] == [TENANT] * 7 + ["blue"] * 3


async def test_more_tenants_than_a_batch_holds_are_served_in_the_order_they_wait(
    intake: Intake, provider: Provider
) -> None:
    clock = intake.clock
    for tenant_id in ("t3", "t1", "t2"):
        clock.advance(1)
        waiting = replace(provider, tenant_id=tenant_id)
        async with intake.database.transaction() as connection:
            await registry_store.add_provider(connection, waiting)
        await _add(intake.database, _item(waiting, clock, "jti-1"))

    assert [signal.tenant_id for signal in await _pending(intake.database, limit=2)] == ["t3", "t1"]


async def test_a_marked_signal_is_not_pending_any_more(intake: Intake, provider: Provider) -> None:
    clock = intake.clock
    states = (SignalState.ASSESSED, SignalState.FAILED, SignalState.IGNORED, SignalState.UNMATCHED)
    items = [_item(provider, clock, state) for state in states]
    await _add(intake.database, *items)

    marks = [_mark_of(item, SignalState(item.jti), "opaque:LT-1") for item in items]
    await _mark(intake.database, clock, *marks)

    assert await _pending(intake.database) == []
    for signal in await intake.stored():
        assert (signal.state, signal.detail) == (signal.jti, "a reason")
        assert signal.assessed_at == clock.now()


async def test_no_marks_and_no_signals_are_fine(intake: Intake) -> None:
    await _mark(intake.database, intake.clock)
    assert await _pending(intake.database) == []


async def test_an_unmatched_signal_is_assessed_again_when_its_subject_appears(
    intake: Intake, provider: Provider
) -> None:
    clock = intake.clock
    rosa, eve = _item(provider, clock, "rosa"), _item(provider, clock, "eve")
    await _add(intake.database, rosa, eve)
    rosa_keys = ("email:rosa@green.example", "opaque:LT-1", "opaque:LT-1")
    await _mark(
        intake.database,
        clock,
        _mark_of(rosa, SignalState.UNMATCHED, *rosa_keys),
        _mark_of(eve, SignalState.UNMATCHED, "email:eve@green.example"),
    )
    # The same signal twice: a repeat of the batch after a crash.
    await _mark(intake.database, clock, _mark_of(rosa, SignalState.UNMATCHED, *rosa_keys))

    async with intake.database.transaction() as connection:
        assert await inbox_store.requeue_unmatched(connection, "blue", rosa_keys) == 0
        assert await inbox_store.requeue_unmatched(connection, TENANT, ["opaque:other"]) == 0
        assert await inbox_store.requeue_unmatched(connection, TENANT, rosa_keys) == 1
        assert await inbox_store.requeue_unmatched(connection, TENANT, rosa_keys) == 0

    assert [signal.jti for signal in await _pending(intake.database)] == ["rosa"]


async def test_what_happens_to_a_provider_counts_for_its_waiting_signals(
    intake: Intake, provider: Provider
) -> None:
    await _add(intake.database, _item(provider, intake.clock, "jti-1"))
    expected: list[tuple[dict[str, Any], ProviderMode]] = [
        ({}, ProviderMode.ENFORCE),
        ({"mode": ProviderMode.LOG_ONLY}, ProviderMode.LOG_ONLY),
        ({"mode": ProviderMode.NONE}, ProviderMode.NONE),
        ({"status": ProviderStatus.QUARANTINED}, ProviderMode.LOG_ONLY),
        ({"status": ProviderStatus.INACTIVE}, ProviderMode.LOG_ONLY),
    ]

    for changes, mode in expected:
        await registry.update_provider(
            intake.admin,
            replace(provider.settings, **changes),
            tenant_id=TENANT,
            provider_id=provider.provider_id,
        )
        (signal,) = await _pending(intake.database)
        assert signal.mode is mode


async def test_signals_of_a_deleted_provider_are_assessed_without_effect(
    intake: Intake, provider: Provider
) -> None:
    await _add(intake.database, _item(provider, intake.clock, "jti-1"))
    await registry.delete_provider(intake.admin, TENANT, provider.provider_id)

    (signal,) = await _pending(intake.database)
    assert (signal.mode, signal.level_cap) == (ProviderMode.LOG_ONLY, "MEDIUM")


async def test_the_lowest_cap_of_an_issuer_counts_and_outlives_its_provider(intake: Intake) -> None:
    async def caps() -> dict[str, str | None]:
        async with intake.database.snapshot() as connection:
            return await registry_store.level_caps(connection, TENANT)

    high = await intake.register(name="a", level_cap="HIGH")
    low = await intake.register(name="b", level_cap="LOW")
    await intake.register(name="c", issuer="https://free.example")
    await intake.register(tenant_id="blue", issuer="https://blue.example", level_cap="LOW")
    assert await caps() == {vendor.ISSUER: "LOW"}

    await registry.delete_provider(intake.admin, TENANT, low.provider_id)
    assert await caps() == {vendor.ISSUER: "HIGH"}

    await registry.delete_provider(intake.admin, TENANT, high.provider_id)
    assert await caps() == {vendor.ISSUER: "LOW"}

    await intake.register(name="d")
    assert await caps() == {}


async def test_signals_are_listed_newest_first_by_page_and_state(
    intake: Intake, provider: Provider
) -> None:
    clock = intake.clock
    items = [_item(provider, clock, f"jti-{number}") for number in range(4)]
    await _add(intake.database, *items)
    await _mark(intake.database, clock, _mark_of(items[1], SignalState.UNMATCHED, "opaque:x"))
    await _mark(intake.database, clock, _mark_of(items[0], SignalState.ASSESSED))

    async with intake.database.snapshot() as connection:
        page = await store.list_signals(connection, TENANT, limit=2)
        rest = await store.list_signals(connection, TENANT, before=page[-1].signal_id)
        unmatched = await store.list_signals(connection, TENANT, state=SignalState.UNMATCHED)
        received = await store.list_signals(connection, TENANT, state=SignalState.RECEIVED)

    assert [signal.jti for signal in page + rest] == ["jti-3", "jti-2", "jti-1", "jti-0"]
    assert [signal.jti for signal in unmatched] == ["jti-1"]
    assert [signal.jti for signal in received] == ["jti-3", "jti-2"]


@on_one_engine  # PostgreSQL plans by statistics, and an empty table has none
async def test_the_search_for_pending_signals_reads_the_partial_index_only(
    intake: Intake, provider: Provider
) -> None:
    """Its cost must not grow with the signals of the past."""
    statement = store._PENDING.where(store.signals.c.tenant_id == TENANT).limit(64)
    for query in (statement, store._WAITING_TENANTS.limit(64)):
        text = str(
            query.compile(
                intake.database.engine.sync_engine, compile_kwargs={"literal_binds": True}
            )
        )
        async with intake.database.snapshot() as connection:
            plan = [
                row[3] for row in await connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))
            ]
        touched = [step for step in plan if "signals" in step]
        assert touched
        assert all("ix_signals_pending" in step for step in touched), plan
        assert not any("TEMP B-TREE" in step for step in plan if query is statement), plan


async def test_queries_of_the_hot_path_are_counted(intake: Intake, provider: Provider) -> None:
    """One statement for a batch of the inbox; two and one per waiting tenant to find work."""
    statements: list[str] = []
    for engine in {intake.database.engine, intake.database.reader}:
        sa.event.listen(
            engine.sync_engine,
            "before_cursor_execute",
            lambda _c, _cursor, statement, *_: statements.append(statement),
        )
    await _add(intake.database, *(_item(provider, intake.clock, f"j{n}") for n in range(64)))
    inserts = [statement for statement in statements if "INSERT" in statement]
    statements.clear()
    await _pending(intake.database)
    selects = [statement for statement in statements if "SELECT" in statement]

    assert len(inserts) == 1
    assert len(selects) == 2


@on_one_engine
async def test_an_unknown_state_cannot_be_written(intake: Intake, provider: Provider) -> None:
    item = _item(provider, intake.clock, "jti-1")

    with pytest.raises(ValueError, match="is not a valid SignalState"):
        await _mark(
            intake.database,
            intake.clock,
            SignalMark(tenant_id=TENANT, signal_id=item.signal_id, state="done"),
        )


async def test_a_provider_of_another_tenant_is_not_found(
    intake: Intake, provider: Provider, settings: ProviderSettings
) -> None:
    for attempt in (
        registry.get_provider(intake.admin, "blue", provider.provider_id),
        registry.delete_provider(intake.admin, "blue", provider.provider_id),
        registry.update_provider(
            intake.admin, settings, tenant_id="blue", provider_id=provider.provider_id
        ),
    ):
        with pytest.raises(NotFound):
            await attempt
