"""Group commit: many requests, one transaction, each answered after the commit.

    submit(operation, item) ─┐
    submit(operation, item) ─┼─▶ queue ─▶ [ one transaction: handle(items) ] ─▶ answers
    submit(operation, item) ─┘             while it commits, the next batch collects

An `Operation` is a named write with typed items. Its handler gets all items of a batch at once.
On SQLite the one writer of the file is the core process and other processes send their items to
it (`runtime/ipc.py`); on PostgreSQL every process runs its own `LocalWriter`.

INVARIANT: a batch never fails because of one item. When a batch raises, its halves are tried
again, and theirs, until the bad item is alone and answers its own waiter.

INVARIANT: where several transactions run at once, each holds the locks of one operation. Two that
came in another order in another process would lock the same things in another order.

INVARIANT: nothing is written twice. What may have been committed, because only the answer to the
commit is missing, is not tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import sqlalchemy as sa
import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.crowd import Crowd
from runtime.database import Database
from runtime.deadlocks import repeated, was_undone
from runtime.errors import Overloaded, Refused, Unavailable
from runtime.notify import TOPICS, Notifier

QUEUE_ITEMS_MAX: Final = 10_000
BATCH_ITEMS_MAX: Final = 256
#: transactions for callers outside that one process has under way, where there may be several
URGENT_AT_ONCE: Final = 2
#: a batch of this many says that callers are queueing
CROWDED_ITEMS: Final = 8
#: so soon after the last one a batch says that callers keep coming
BUSY_GAP_S: Final = 0.02

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

log = structlog.get_logger()
_batches = Histogram(
    "hub_runtime_batch_items",
    "Items per group commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
_commit_seconds = Histogram("hub_runtime_commit_seconds", "Duration of one group commit.")
_refused_total = Counter("hub_runtime_writes_refused_total", "Items refused: queue full.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[ItemT, ResultT]):
    """A named write. `handle` runs inside the transaction; one result per item, in order.

    `item` and `result` are msgspec Structs or builtins: they travel between processes.
    `wakes`: topics to wake after the commit. `is_urgent`: somebody outside waits for the answer, so
    that work of the hub's own holds back while many come. `is_own`: nobody outside waits for it at
    all, so that the pipeline need not be brief for its sake.
    """

    name: str
    item: type[ItemT]
    result: type[ResultT]
    handle: Callable[[AsyncConnection, Sequence[ItemT]], Awaitable[Sequence[ResultT]]]
    wakes: tuple[str, ...] = ()
    is_urgent: bool = False
    is_own: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown topic here, not after the commit. Raises ValueError."""
        if unknown := set(self.wakes) - TOPICS:
            raise ValueError(f"operation {self.name!r} wakes unknown topics {sorted(unknown)}")


class Writer(Protocol):
    """Where hot writes go."""

    async def submit(self, operation: Operation[ItemT, ResultT], item: ItemT) -> ResultT:
        """Write one item; return after COMMIT.

        Raises Overloaded when the queue is full, Unavailable when it is unknown whether the
        write happened, and whatever Refused the operation's handler raised for this item.
        """
        ...


class _NotBegun(Unavailable):
    """No transaction could be started, so no item is to blame."""


class _Unsure(Unavailable):
    """All was done but for the commit's answer: it may be written, so nothing is tried again."""


@dataclass(frozen=True, slots=True)
class _Entry:
    operation: Operation[Any, Any]
    item: Any
    answer: asyncio.Future[Any]


@dataclass(eq=False, slots=True)
class _Line:
    """What waits for its commit, and how many transactions may be under way for it."""

    committers: int = 1
    queue: deque[_Entry] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> list[_Entry]:
        """Return the next batch."""
        size = min(len(self.queue), BATCH_ITEMS_MAX)
        batch = [self.queue.popleft() for _ in range(size)]
        if not self.queue:
            self.arrived.clear()
        return batch


def _lines(dialect: str) -> tuple[_Line, _Line]:
    """Return the lines of what is not urgent, and of what is.

    SQLite has one writer, so both are one. PostgreSQL commits one batch of callers outside while
    the next one is filled; what the hub does by itself stays one at a time, because it may change
    the same rows in another order.
    """
    if dialect == "sqlite":
        both = _Line()
        return both, both
    return _Line(), _Line(committers=URGENT_AT_ONCE)


class LocalWriter:
    """Commits the items of this process (and of those that send to it) in batches."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        *,
        crowd: Crowd | None = None,
        queue_items_max: int = QUEUE_ITEMS_MAX,
    ) -> None:
        """crowd: where to say that callers queue."""
        self._crowd = crowd or Crowd()
        self._database = database
        self._notifier = notifier
        self._lines = _lines(database.dialect)
        self._queue_items_max = queue_items_max
        self._stopped = False
        self._committed_at = float("-inf")

    async def submit(self, operation: Operation[ItemT, ResultT], item: ItemT) -> ResultT:
        """Write one item; return after COMMIT. Errors as in `Writer`."""
        answer = self.enqueue(operation, item)
        result: ResultT = await answer
        return result

    def enqueue(self, operation: Operation[Any, Any], item: Any) -> asyncio.Future[Any]:
        """Queue one item and return the future of its answer.

        Raises Overloaded when the queue is full, Unavailable when the writer has stopped.
        """
        if self._stopped:
            raise Unavailable("The hub is shutting down.")
        line = self._lines[operation.is_urgent]
        if len(line.queue) >= self._queue_items_max:
            _refused_total.inc()
            raise Overloaded("The write queue is full.", retry_after_s=1.0)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        line.queue.append(_Entry(operation, item, answer))
        line.arrived.set()
        return answer

    async def run(self) -> None:
        """Commit batches until cancelled; what is queued or under way then answers Unavailable."""
        self._stopped = False
        lines = set(self._lines)
        try:
            async with asyncio.TaskGroup() as group:
                for line in lines:
                    for _ in range(line.committers):
                        group.create_task(self._commit_batches(line))
        finally:
            self._stopped = True
            for line in lines:
                _fail_all(line.queue)
                line.queue.clear()

    async def _commit_batches(self, line: _Line) -> None:
        batch: list[_Entry] = []
        try:
            while True:
                await line.arrived.wait()
                batch = line.take()
                if batch:
                    await self._commit(batch)
        finally:
            _fail_all(batch)

    async def _commit(self, batch: list[_Entry]) -> None:
        _batches.observe(len(batch))
        self._note_load(batch)
        for part in self._transactions(batch):
            try:
                with _commit_seconds.time():
                    results = await self._write(part)
            except Exception as error:  # noqa: BLE001 - outermost step of the writer: see below
                await self._commit_parts(part, error)
            else:
                self._answer(results)

    def _transactions(self, batch: list[_Entry]) -> list[list[_Entry]]:
        """Return a batch as it is to be written: what nobody waits for comes last.

        SQLite has one writer, and each commit of it waits for the disk: there it is one.
        """
        if self._database.dialect == "sqlite":
            return [batch]
        return sorted(_by_operation(batch), key=lambda entries: entries[0].operation.is_own)

    def _note_load(self, batch: list[_Entry]) -> None:
        outside = sum(not entry.operation.is_own for entry in batch)
        if not outside:
            return
        now = time.monotonic()
        if sum(entry.operation.is_urgent for entry in batch) >= CROWDED_ITEMS:
            self._crowd.note_crowded()
        elif outside >= CROWDED_ITEMS or now - self._committed_at < BUSY_GAP_S:
            self._crowd.note_busy()
        self._committed_at = now

    async def _commit_parts(self, batch: list[_Entry], error: Exception) -> None:
        """Find out which item of a failed batch was the bad one; the others still commit.

        Halving finds one bad item among 256 with 16 commits. A database that does not begin a
        transaction is nobody's fault: all answer at once, so that an outage costs one wait and
        not one per item. The same goes for a lost answer to the commit, and for deadlocks.
        """
        if len(batch) == 1 or isinstance(error, _NotBegun | _Unsure) or was_undone(error):
            for entry in batch:
                _fail(entry, _presentable(entry, error))
            return
        middle = len(batch) // 2
        for part in (batch[:middle], batch[middle:]):
            try:
                results = await self._write(part)
            except Exception as trouble:  # noqa: BLE001 - each waiter gets its own error
                await self._commit_parts(part, trouble)
            else:
                self._answer(results)

    async def _write(self, batch: list[_Entry]) -> list[tuple[_Entry, Any]]:
        return await repeated(partial(self._write_once, batch))

    async def _write_once(self, batch: list[_Entry]) -> list[tuple[_Entry, Any]]:
        answered: list[tuple[_Entry, Any]] = []
        is_written = False
        try:
            async with AsyncExitStack() as stack:
                connection = await self._begun(stack)
                for entries in _by_operation(batch):
                    operation = entries[0].operation
                    results = await operation.handle(connection, [entry.item for entry in entries])
                    answered.extend(zip(entries, results, strict=True))
                is_written = True
        except Exception as error:
            if is_written and not was_undone(error):
                log.warning("write.unsure", items=len(batch), error=type(error).__name__)
                raise _Unsure("It is not known whether the write happened.") from error
            raise
        return answered

    async def _begun(self, stack: AsyncExitStack) -> AsyncConnection:
        """Begin a transaction that ends with `stack`. Raises _NotBegun."""
        try:
            return await stack.enter_async_context(self._database.transaction())
        except Exception as error:
            log.warning("write.not_begun", error=type(error).__name__)
            raise _NotBegun("The database is not reachable.") from error

    def _answer(self, results: list[tuple[_Entry, Any]]) -> None:
        topics: set[str] = set()
        for entry, result in results:
            topics.update(entry.operation.wakes)
            if not entry.answer.done():
                entry.answer.set_result(result)
        self._notifier.wake_all(sorted(topics))


def index_operations(
    operations: Iterable[Operation[Any, Any]],
) -> Mapping[str, Operation[Any, Any]]:
    """Return operations by name. Raises ValueError when two share one."""
    index: dict[str, Operation[Any, Any]] = {}
    for operation in operations:
        if operation.name in index:
            raise ValueError(f"two operations are named {operation.name!r}")
        index[operation.name] = operation
    return index


def _by_operation(batch: list[_Entry]) -> list[list[_Entry]]:
    groups: dict[str, list[_Entry]] = {}
    for entry in batch:
        groups.setdefault(entry.operation.name, []).append(entry)
    return list(groups.values())


def _fail_all(entries: Iterable[_Entry]) -> None:
    for entry in entries:
        _fail(entry, Unavailable("The hub is shutting down."))


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)


def _presentable(entry: _Entry, error: Exception) -> Exception:
    """Return what the waiter gets: refusals as they are, trouble as Unavailable."""
    if isinstance(error, Refused | Unavailable):
        return error
    if isinstance(error, sa.exc.DBAPIError | OSError | TimeoutError):
        log.warning("write.failed", operation=entry.operation.name, error=type(error).__name__)
        return Unavailable("The database did not take the write.")
    log.error("write.failed", operation=entry.operation.name, exc_info=error)
    return Unavailable("The write failed.", retry_after_s=30.0)
