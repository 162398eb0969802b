"""Group commit: many writers share a commit, and nobody pays for another's mistake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs
from structlog.typing import EventDict

from runtime.database import Database, serialize
from runtime.deadlocks import TRIES_MAX
from runtime.errors import Conflict, Overloaded, Unavailable
from runtime.notify import Notifier
from runtime.writer import BATCH_ITEMS_MAX, LocalWriter, Operation, index_operations
from tests.runtime import ledger
from tests.runtime.background import LIMIT_S, running
from tests.runtime.ledger import COUNT, HANG, WRITE, Entry, Receipt


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
async def stored(database: Database) -> Database:
    await ledger.create(database)
    return database


@pytest.fixture
async def ledger_file(tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file with the ledger alone: for what does not depend on the engine."""
    opened = Database.connect(f"sqlite:///{tmp_path}/ledger.db")
    await ledger.create(opened)
    yield opened
    await opened.close()


async def _submit_all(writer: LocalWriter, items: Sequence[Entry]) -> list[Receipt | BaseException]:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.gather(
            *(writer.submit(WRITE, item) for item in items), return_exceptions=True
        )


async def test_a_submit_returns_after_its_commit(stored: Database) -> None:
    writer = LocalWriter(stored, Notifier())
    async with running(writer.run()):
        receipt = await writer.submit(WRITE, Entry("a"))
        assert receipt == Receipt(name="a", batch_size=1)
        assert await ledger.names(stored) == {"a"}


async def test_many_submits_share_commits(stored: Database) -> None:
    writer = LocalWriter(stored, Notifier())
    commits: list[object] = []
    sa.event.listen(stored.engine.sync_engine, "commit", commits.append)
    async with running(writer.run()):
        receipts = await _submit_all(writer, [Entry(f"n{number}") for number in range(500)])
    assert [receipt.name for receipt in receipts if isinstance(receipt, Receipt)] == [
        f"n{number}" for number in range(500)
    ]
    assert len(commits) <= 1 + 500 // BATCH_ITEMS_MAX
    assert len(await ledger.names(stored)) == 500


async def test_one_batch_is_bounded(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    async with running(writer.run()):
        receipts = await _submit_all(writer, [Entry(f"n{number}") for number in range(1_000)])
    sizes = {receipt.batch_size for receipt in receipts if isinstance(receipt, Receipt)}
    assert max(sizes) == BATCH_ITEMS_MAX


@pytest.mark.parametrize(
    "poison", [Entry("poison-x"), Entry("breaks-a-constraint", amount=-1)], ids=["raises", "sql"]
)
async def test_a_poison_item_fails_alone_and_the_other_63_commit(
    stored: Database, poison: Entry
) -> None:
    writer = LocalWriter(stored, Notifier())
    items = [Entry(f"good-{number}") for number in range(64)]
    items[31] = poison
    async with running(writer.run()):
        outcomes = await _submit_all(writer, items)
    failed = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Receipt)]
    assert failed == [31]
    assert isinstance(outcomes[31], Unavailable)
    assert await ledger.names(stored) == {item.name for item in items} - {poison.name}


async def test_one_bad_item_costs_a_few_commits_and_not_one_per_item(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    begun: list[object] = []
    sa.event.listen(ledger_file.engine.sync_engine, "begin", begun.append)
    items = [Entry(f"n{number}") for number in range(BATCH_ITEMS_MAX - 1)] + [Entry("poison-x")]
    async with running(writer.run()):
        outcomes = await _submit_all(writer, items)
    assert sum(isinstance(outcome, Receipt) for outcome in outcomes) == BATCH_ITEMS_MAX - 1
    assert len(begun) <= 17


async def test_when_all_items_are_bad_each_gets_its_own_answer(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    async with running(writer.run()):
        outcomes = await _submit_all(writer, [Entry(f"taken-{number}") for number in range(20)])
    assert [outcome.pointers[0][1] for outcome in outcomes if isinstance(outcome, Conflict)] == [
        f"taken-{number}" for number in range(20)
    ]


async def test_a_refusal_reaches_its_own_waiter_as_it_is(stored: Database) -> None:
    writer = LocalWriter(stored, Notifier())
    async with running(writer.run()):
        first, refused, last = await _submit_all(writer, [Entry("a"), Entry("taken-b"), Entry("c")])
    assert isinstance(refused, Conflict)
    assert refused.pointers == (("/name", "taken-b"),)
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert await ledger.names(stored) == {"a", "c"}


async def test_what_a_handler_says_is_unavailable_stays_so(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    async with running(writer.run()):
        with pytest.raises(Unavailable) as caught:
            await writer.submit(WRITE, Entry("away-x"))
    assert caught.value.retry_after_s == 7.0


async def test_a_bug_of_a_handler_is_logged_and_not_shown(
    ledger_file: Database, logs: list[EventDict]
) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    async with running(writer.run()):
        with pytest.raises(Unavailable) as caught:
            await writer.submit(WRITE, Entry("poison-x"))
    assert "bug" not in caught.value.detail
    assert [(line["event"], line["operation"]) for line in logs] == [
        ("write.failed", "ledger.write")
    ]


async def test_a_handler_that_answers_too_few_writes_nothing(ledger_file: Database) -> None:
    async def forgetful(connection: AsyncConnection, batch: Sequence[Entry]) -> list[Receipt]:
        return (await ledger.write(connection, batch))[:-1]

    operation = Operation(name="ledger.forget", item=Entry, result=Receipt, handle=forgetful)
    writer = LocalWriter(ledger_file, Notifier())
    async with running(writer.run()):
        with pytest.raises(Unavailable):
            await writer.submit(operation, Entry("a"))
    assert await ledger.names(ledger_file) == set()


async def test_a_full_queue_refuses_and_keeps_what_it_holds(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier(), queue_items_max=3)
    held = [writer.enqueue(WRITE, Entry(f"n{number}")) for number in range(3)]
    with pytest.raises(Overloaded) as caught:
        await writer.submit(WRITE, Entry("n3"))
    assert caught.value.retry_after_s == 1.0
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        await asyncio.gather(*held)
    assert await ledger.names(ledger_file) == {"n0", "n1", "n2"}


async def test_operations_of_one_batch_share_its_transaction(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    written = [writer.enqueue(WRITE, Entry(f"n{number}")) for number in range(3)]
    counted = writer.enqueue(COUNT, "n")
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        await asyncio.gather(*written)
        assert await counted == 3


async def test_a_stopped_writer_answers_what_was_queued_and_what_was_under_way(
    stored: Database,
) -> None:
    """Regression: the batch under way was forgotten, and its requests waited for ever."""
    entered = asyncio.Event()

    async def hang(connection: AsyncConnection, batch: Sequence[str]) -> list[None]:
        entered.set()
        return await ledger.hang(connection, batch)

    writer = LocalWriter(stored, Notifier())
    async with running(writer.run()) as (loop,), asyncio.timeout(LIMIT_S):
        under_way = writer.enqueue(replace(HANG, handle=hang), "under-way")
        await entered.wait()
        queued = [writer.enqueue(WRITE, Entry(f"n{number}")) for number in range(3)]
        loop.cancel()
        outcomes = await asyncio.gather(under_way, *queued, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
    assert await ledger.names(stored) == set()


async def test_a_stopped_writer_takes_nothing_more(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    async with running(writer.run()):
        await writer.submit(WRITE, Entry("a"))
    with pytest.raises(Unavailable):
        await writer.submit(WRITE, Entry("b"))


async def test_waiters_are_woken_after_the_commit(ledger_file: Database) -> None:
    notifier = Notifier()
    writer = LocalWriter(ledger_file, notifier)
    seen = notifier.count("tasks")
    async with running(writer.run()):
        answer = writer.enqueue(WRITE, Entry("a"))
        assert await notifier.wait("tasks", LIMIT_S, since=seen)
        assert await ledger.names(ledger_file) == {"a"}
        await answer


async def test_a_failed_write_wakes_nobody(ledger_file: Database) -> None:
    notifier = Notifier()
    writer = LocalWriter(ledger_file, notifier)
    async with running(writer.run()):
        await _submit_all(writer, [Entry("poison-x")])
    assert notifier.count("tasks") == 0


async def test_a_waiter_that_gives_up_does_not_stop_the_others(ledger_file: Database) -> None:
    writer = LocalWriter(ledger_file, Notifier())
    gone = asyncio.create_task(writer.submit(WRITE, Entry("gone")))
    stays = asyncio.create_task(writer.submit(WRITE, Entry("stays")))
    await asyncio.sleep(0)  # one turn of the loop: both are queued
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        assert (await stays).name == "stays"


async def test_an_outage_costs_one_attempt_and_not_one_per_item() -> None:
    """Regression: with the database gone each item of a batch waited for its own time limit."""
    gone = Database.connect("postgresql://nobody@127.0.0.1:1/nothing")
    attempts: list[object] = []
    sa.event.listen(gone.engine.sync_engine, "do_connect", lambda *what: attempts.append(what))
    writer = LocalWriter(gone, Notifier())
    answers = [writer.enqueue(WRITE, Entry(f"n{number}")) for number in range(100)]
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
    await gone.close()
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(attempts) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_writer_goes_on_after_its_connection_was_cut(stored: Database) -> None:
    async def cut(connection: AsyncConnection, batch: Sequence[str]) -> list[int]:
        await connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return [0 for _ in batch]

    writer = LocalWriter(stored, Notifier())
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        cutting = writer.enqueue(replace(COUNT, name="ledger.cut", handle=cut), "n")
        other = writer.enqueue(WRITE, Entry("a"))
        with pytest.raises(Unavailable):
            await cutting
        assert (await other).name == "a"
        assert await writer.submit(COUNT, "a") == 1


def test_two_operations_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ledger\.write"):
        index_operations([WRITE, COUNT, WRITE])


def test_operations_are_found_by_name() -> None:
    index: Any = index_operations([WRITE, COUNT])
    assert index == {"ledger.write": WRITE, "ledger.count": COUNT}


def test_an_operation_that_wakes_an_unknown_topic_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="weather"):
        Operation(
            name="x", item=Entry, result=Receipt, handle=ledger.write, wakes=("tasks", "weather")
        )


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_batch_of_callers_begins_while_the_one_before_it_commits(stored: Database) -> None:
    both, entered = asyncio.Barrier(2), asyncio.Event()

    async def meet(_connection: AsyncConnection, batch: Sequence[str]) -> list[int]:
        entered.set()
        await both.wait()
        return [0 for _ in batch]

    urgent = replace(COUNT, name="ledger.urgent", handle=meet, is_urgent=True)
    writer = LocalWriter(stored, Notifier())
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        first = writer.enqueue(urgent, "a")
        await entered.wait()
        assert await writer.submit(urgent, "b") == 0
        assert await first == 0


# --- where several transactions run at once -----------------------------------------------------


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_an_operation_holds_no_locks_while_another_one_is_written(stored: Database) -> None:
    """Regression: batches of two processes waited for each other, in another order."""

    def locking(name: str) -> Operation[str, int]:
        async def lock(connection: AsyncConnection, batch: Sequence[str]) -> list[int]:
            await serialize(connection, name)
            return [0 for _ in batch]

        return replace(COUNT, name=f"ledger.{name}", handle=lock)

    writer = LocalWriter(stored, Notifier())
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        async with stored.transaction() as connection:
            await serialize(connection, "second")
            one, two = (writer.enqueue(locking(name), "x") for name in ("first", "second"))
            assert await one == 0
            await serialize(connection, "first")
        assert await two == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_what_nobody_waits_for_is_written_last(stored: Database) -> None:
    order: list[str] = []

    async def note(_connection: AsyncConnection, batch: Sequence[str]) -> list[int]:
        order.extend(batch)
        return [0 for _ in batch]

    mine = replace(COUNT, name="ledger.own", handle=note, is_own=True)
    theirs = replace(COUNT, name="ledger.theirs", handle=note)
    writer = LocalWriter(stored, Notifier())
    answers = [writer.enqueue(mine, "mine"), writer.enqueue(theirs, "theirs")]
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        await asyncio.gather(*answers)
    assert order == ["theirs", "mine"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("undone", [TRIES_MAX - 1, TRIES_MAX])
async def test_a_batch_that_was_undone_is_tried_again_whole(stored: Database, undone: int) -> None:
    sizes: list[int] = []

    async def handle(connection: AsyncConnection, batch: Sequence[Entry]) -> list[Receipt]:
        sizes.append(len(batch))
        receipts = await ledger.write(connection, batch)
        if len(sizes) <= undone:
            text = "DO $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '40P01'; END $$"
            await connection.execute(sa.text(text))
        return receipts

    writer = LocalWriter(stored, Notifier())
    operation = replace(WRITE, handle=handle)
    answers = [writer.enqueue(operation, Entry(f"n{number}")) for number in range(3)]
    async with running(writer.run()), asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert sizes == [3] * TRIES_MAX
    expected = Receipt if undone < TRIES_MAX else Unavailable
    assert {type(outcome) for outcome in outcomes} == {expected}
    assert len(await ledger.names(stored)) == (3 if undone < TRIES_MAX else 0)


@asynccontextmanager
async def losing_an_answer(database: Database) -> AsyncIterator[Database]:
    """The same database by a way on which the answer to the first COMMIT gets lost."""
    there = database.engine.url
    lost: list[bytes] = []

    async def carry(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if there.host:
            answers, forth = await asyncio.open_connection(there.host, there.port or 5432)
        else:
            socket = f"{there.query['host']}/.s.PGSQL.{there.query.get('port', 5432)}"
            answers, forth = await asyncio.open_unix_connection(socket)
        is_committing = False

        async def ask() -> None:
            nonlocal is_committing
            while said := await near.read(65_536):
                is_committing = b"COMMIT" in said
                forth.write(said)
            forth.close()

        async def answer() -> None:
            while said := await answers.read(65_536):
                if is_committing and not lost:
                    # It answers, so that it has committed.
                    lost.append(said)
                    break
                back.write(said)
            back.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    way = there.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1], query={})
    url = way.set(drivername="postgresql")
    opened = Database.connect(url.render_as_string(hide_password=False))
    try:
        yield opened
    finally:
        await opened.close()
        server.close()
    assert lost


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_what_may_have_been_committed_is_not_written_again(
    stored: Database, logs: list[EventDict]
) -> None:
    """Regression: the halves of a batch were written once more, so that counts counted twice."""

    async def add(connection: AsyncConnection, batch: Sequence[str]) -> list[int]:
        await connection.execute(
            sa.update(ledger.entries)
            .where(ledger.entries.c.tenant_id == "default", ledger.entries.c.name == "sum")
            .values(amount=ledger.entries.c.amount + len(batch))
        )
        return [0 for _ in batch]

    async with stored.transaction() as connection:
        await ledger.write(connection, [Entry("sum", amount=1)])
    async with losing_an_answer(stored) as database:
        writer = LocalWriter(database, Notifier())
        adding = replace(COUNT, name="ledger.add", handle=add)
        answers = [writer.enqueue(adding, "x") for _ in range(4)]
        async with running(writer.run()), asyncio.timeout(LIMIT_S):
            outcomes = await asyncio.gather(*answers, return_exceptions=True)
            assert await writer.submit(adding, "x") == 0
    async with stored.snapshot() as connection:
        amount = sa.select(ledger.entries.c.amount).where(ledger.entries.c.tenant_id == "default")
        assert await connection.scalar(amount) == 1 + 4 + 1
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert "write.unsure" in {line["event"] for line in logs}
