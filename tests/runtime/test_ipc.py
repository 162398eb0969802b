"""The local socket to core: answers, errors and wake-ups travel; a lost core hangs nobody."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from runtime.database import Database
from runtime.errors import Conflict, Forbidden, Overloaded, Unavailable
from runtime.ipc import FRAME_BYTES_MAX, ITEM_BYTES_MAX, CoreClient, CoreServer
from runtime.notify import Notifier
from runtime.writer import LocalWriter, Operation, index_operations
from tests.runtime import ledger
from tests.runtime.background import LIMIT_S, running
from tests.runtime.ledger import COUNT, ECHO, HANG, OPERATIONS, WRITE, Entry, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """A core in this process, reached through a real socket."""

    database: Database
    notifier: Notifier
    socket: Path
    server: CoreServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One connected process, as far as core can tell."""

    client: CoreClient
    notifier: Notifier


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def socket() -> Iterator[Path]:
    # Not tmp_path: the address of a local socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hub") as folder:
        yield Path(folder) / "core.sock"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.connect(f"sqlite:///{tmp_path}/ledger.db")
    await ledger.create(opened)
    yield opened
    await opened.close()


@asynccontextmanager
async def _core(
    database: Database,
    socket: Path,
    operations: Sequence[Operation[Any, Any]] = OPERATIONS,
    queue_items_max: int = 10_000,
) -> AsyncIterator[Core]:
    notifier = Notifier()
    writer = LocalWriter(database, notifier, queue_items_max=queue_items_max)
    server = CoreServer(writer, notifier, index_operations(operations))
    listening = await server.serve(socket)
    async with running(writer.run()), listening:
        try:
            yield Core(database=database, notifier=notifier, socket=socket, server=server)
        finally:
            for peer in tuple(server.peers):
                peer.close()


@asynccontextmanager
async def _peer(socket: Path) -> AsyncIterator[Peer]:
    notifier = Notifier()
    client = CoreClient(socket, notifier)
    async with running(client.run()):
        assert await client.connected(LIMIT_S)
        yield Peer(client=client, notifier=notifier)


@pytest.fixture
async def core(database: Database, socket: Path) -> AsyncIterator[Core]:
    async with _core(database, socket) as started:
        yield started


@pytest.fixture
async def peer(core: Core) -> AsyncIterator[Peer]:
    async with _peer(core.socket) as connected:
        yield connected


def _named(name: str, *, item: type[Any], result: type[Any]) -> Operation[Any, Any]:
    """Return an operation as another release of the hub may declare it."""
    return Operation(name=name, item=item, result=result, handle=ledger.echo)


async def _outcomes(*submits: Any) -> list[Any]:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.gather(*submits, return_exceptions=True)


async def test_a_submit_is_answered_after_cores_commit(core: Core, peer: Peer) -> None:
    receipt = await peer.client.submit(WRITE, Entry("a"))
    assert receipt == Receipt(name="a", batch_size=1)
    assert await ledger.names(core.database) == {"a"}


async def test_submits_of_two_processes_share_commits(core: Core) -> None:
    async with _peer(core.socket) as one, _peer(core.socket) as other:
        submits = [
            peer.client.submit(WRITE, Entry(f"{side}{number}"))
            for number in range(100)
            for side, peer in (("a", one), ("b", other))
        ]
        receipts = await _outcomes(*submits)
    assert len(await ledger.names(core.database)) == 200
    assert max(receipt.batch_size for receipt in receipts) > 1


async def test_each_answer_reaches_its_own_waiter(peer: Peer) -> None:
    payloads = [f"payload {number}".encode() for number in range(300)]
    assert await _outcomes(*(peer.client.submit(ECHO, payload) for payload in payloads)) == payloads


async def test_what_is_submitted_while_core_is_at_work_follows_by_itself(peer: Peer) -> None:
    """Such items wait for each other, but for no longer than GATHER_S and for no answer."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Task[Any]] = []
    for number in range(200):
        submitted = peer.client.submit(WRITE, Entry(f"n{number}"))
        answers.append(loop.create_task(submitted))
        await asyncio.sleep(0)
    receipts = await _outcomes(*answers)
    assert [receipt.name for receipt in receipts] == [f"n{number}" for number in range(200)]


async def test_refusals_travel_with_what_belongs_to_them(peer: Peer) -> None:
    taken, forbidden, good = await _outcomes(
        *(peer.client.submit(WRITE, Entry(name)) for name in ("taken-a", "forbidden-b", "c"))
    )
    assert isinstance(taken, Conflict)
    assert (taken.detail, taken.pointers) == ("The name is taken.", (("/name", "taken-a"),))
    assert isinstance(forbidden, Forbidden)
    assert forbidden.scope == "ledger.write"
    assert isinstance(good, Receipt)


async def test_the_wait_that_core_asks_for_travels(peer: Peer) -> None:
    with pytest.raises(Unavailable) as caught:
        await peer.client.submit(WRITE, Entry("away-x"))
    assert caught.value.retry_after_s == 7.0


async def test_a_full_queue_of_core_is_overload_here(database: Database, socket: Path) -> None:
    async with _core(database, socket, queue_items_max=2), _peer(socket) as peer:
        outcomes = await _outcomes(
            *(peer.client.submit(WRITE, Entry(f"n{number}")) for number in range(5))
        )
    assert [type(outcome) for outcome in outcomes] == [Receipt] * 2 + [Overloaded] * 3
    assert outcomes[-1].retry_after_s == 1.0


async def test_an_operation_core_does_not_know_is_unavailable(peer: Peer) -> None:
    with pytest.raises(Unavailable, match="versions differ"):
        await peer.client.submit(replace(COUNT, name="ledger.new"), "n")


async def test_an_item_core_cannot_read_fails_alone(peer: Peer) -> None:
    wrong, right = await _outcomes(
        peer.client.submit(_named("ledger.write", item=dict, result=Receipt), {"name": 1}),
        peer.client.submit(WRITE, Entry("a")),
    )
    assert isinstance(wrong, Unavailable)
    assert isinstance(right, Receipt)


async def test_an_answer_of_another_shape_is_unavailable_and_hangs_nobody(peer: Peer) -> None:
    """Regression: the waiter was forgotten and its connection torn down."""
    misread, right = await _outcomes(
        peer.client.submit(_named("ledger.echo", item=bytes, result=int), b"five"),
        peer.client.submit(ECHO, b"six"),
    )
    assert isinstance(misread, Unavailable)
    assert right == b"six"


async def test_an_answer_that_cannot_be_sent_is_unavailable(
    database: Database, socket: Path
) -> None:
    """Regression: core failed while encoding, and the waiter waited for ever."""

    async def strange(_connection: AsyncConnection, batch: Sequence[str]) -> list[Any]:
        return [object() if item == "strange" else item for item in batch]

    operation = Operation(name="ledger.strange", item=str, result=str, handle=strange)
    async with _core(database, socket, [operation]), _peer(socket) as peer:
        odd, plain = await _outcomes(
            peer.client.submit(operation, "strange"), peer.client.submit(operation, "plain")
        )
    assert isinstance(odd, Unavailable)
    assert plain == "plain"


async def test_an_item_that_is_too_large_fails_alone(peer: Peer) -> None:
    large, small = await _outcomes(
        peer.client.submit(ECHO, b"x" * (ITEM_BYTES_MAX + 1)), peer.client.submit(ECHO, b"x")
    )
    assert isinstance(large, Unavailable)
    assert small == b"x"


async def test_items_that_exceed_one_frame_together_are_split(peer: Peer) -> None:
    """Regression: one turn's items in one frame beyond the limit closed the connection."""
    payloads = [bytes([number]) * (ITEM_BYTES_MAX - 64) for number in range(6)]
    assert sum(map(len, payloads)) > FRAME_BYTES_MAX
    answers = await _outcomes(*(peer.client.submit(ECHO, payload) for payload in payloads))
    assert answers == payloads


async def test_when_core_goes_away_everybody_who_waits_is_told(core: Core, peer: Peer) -> None:
    hanging = asyncio.ensure_future(peer.client.submit(HANG, "x"))
    await asyncio.sleep(0)
    for connected in tuple(core.server.peers):
        connected.close()
    (outcome,) = await _outcomes(hanging)
    assert isinstance(outcome, Unavailable)


async def test_without_core_a_submit_fails_at_once(socket: Path) -> None:
    client = CoreClient(socket, Notifier())
    async with running(client.run()):
        assert not await client.connected(0.01)
        with pytest.raises(Unavailable, match="not reachable"):
            await client.submit(ECHO, b"x")


async def test_the_client_connects_when_core_comes_later(database: Database, socket: Path) -> None:
    client = CoreClient(socket, Notifier())
    async with running(client.run()):
        assert not await client.connected(0.01)
        async with _core(database, socket):
            assert await client.connected(LIMIT_S)
            assert await client.submit(ECHO, b"x") == b"x"


async def test_a_client_that_stops_answers_its_waiters(peer: Peer) -> None:
    hanging = asyncio.ensure_future(peer.client.submit(HANG, "x"))
    await asyncio.sleep(0)
    peer.client.close()
    (outcome,) = await _outcomes(hanging)
    assert isinstance(outcome, Unavailable)


async def test_a_wake_up_reaches_core_and_the_others_and_does_not_come_back(core: Core) -> None:
    async with _peer(core.socket) as one, _peer(core.socket) as other:
        marks = {"core": core.notifier.count("polls"), "other": other.notifier.count("polls")}
        one.notifier.wake("polls")
        assert await other.notifier.wait("polls", LIMIT_S, since=marks["other"])
        assert await core.notifier.wait("polls", LIMIT_S, since=marks["core"])
        # What came back would have come in the frame before this answer.
        await one.client.submit(ECHO, b"x")
        assert one.notifier.count("polls") == 1


async def test_a_wake_up_of_core_reaches_every_process(core: Core) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(_peer(core.socket)) for _ in range(3)]
        # The connection is accepted when core has answered over it.
        await _outcomes(*(peer.client.submit(ECHO, b"x") for peer in peers))
        core.notifier.wake("config")
        waits = [peer.notifier.wait("config", LIMIT_S, since=0) for peer in peers]
        assert await asyncio.gather(*waits) == [True] * 3


async def test_a_commit_for_one_process_wakes_another(core: Core) -> None:
    async with _peer(core.socket) as one, _peer(core.socket) as other:
        await other.client.submit(ECHO, b"x")
        await one.client.submit(WRITE, Entry("a"))
        assert await other.notifier.wait("tasks", LIMIT_S, since=0)


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (FRAME_BYTES_MAX + 1).to_bytes(4),
        (5).to_bytes(4) + b"\xc1\xc1\xc1\xc1\xc1",
        (1).to_bytes(4) + b"\x07",
    ],
    ids=["another-protocol", "too-large", "no-msgpack", "another-shape"],
)
async def test_noise_on_the_socket_ends_that_connection_only(
    core: Core, peer: Peer, noise: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(core.socket))
    writer.write(noise)
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read() == b""
    writer.close()
    assert await peer.client.submit(ECHO, b"x") == b"x"


async def test_frames_may_arrive_in_any_pieces(core: Core) -> None:
    reader, writer = await asyncio.open_unix_connection(str(core.socket))
    # [submits [[1, "ledger.echo", bin "hi"]], answers [], wakes []]
    body = b"\x93\x91\x93\x01\xabledger.echo\xc4\x02hi\x90\x90"
    for byte in len(body).to_bytes(4) + body:
        writer.write(bytes([byte]))
        await writer.drain()
    async with asyncio.timeout(LIMIT_S):
        length = int.from_bytes(await reader.readexactly(4))
        answer = await reader.readexactly(length)
    writer.close()
    assert b"\xc4\x02hi" in answer


@asynccontextmanager
async def _core_process(
    socket: Path, database_url: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtime.core_process",
        str(socket),
        database_url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S * 3):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.scenario
async def test_a_killed_core_process_hangs_nobody_and_its_successor_is_found(
    database: Database, socket: Path, tmp_path: Path
) -> None:
    """A kill -9 in the middle of a write: Unavailable, nothing half written, work goes on."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    client = CoreClient(socket, Notifier())
    async with running(client.run()):
        async with _core_process(socket, url) as process:
            assert await client.connected(LIMIT_S)
            assert (await client.submit(WRITE, Entry("before"))).name == "before"
            hanging = asyncio.ensure_future(client.submit(HANG, "never-committed"))
            await asyncio.sleep(0)
            process.kill()
            (outcome,) = await _outcomes(hanging)
            assert isinstance(outcome, Unavailable)
        async with _core_process(socket, url):
            assert await client.connected(LIMIT_S)
            assert (await client.submit(WRITE, Entry("after"))).name == "after"
    assert await ledger.names(database) == {"before", "after"}
