"""How api and delivery processes reach the core process on SQLite: a local socket.

    client                                    core
      submit(op, item) ─▶ [n, op, item]… ──▶  LocalWriter.enqueue
      answer           ◀─ [n, ok, result]… ◀─ after COMMIT
      wake(topic)      ◀─▶ topic            ─▶ every other process

Frames are a 4 byte big-endian length and msgpack. Items submitted in one turn of the event loop
share a frame. When the connection breaks, waiting submits raise Unavailable: whether their write
happened is unknown, and every operation is safe to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import structlog
from typing_extensions import override

from runtime import errors
from runtime.errors import Refused, Unavailable
from runtime.notify import CORE_TOPICS, Notifier
from runtime.writer import ItemT, LocalWriter, Operation, ResultT

FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
ITEM_BYTES_MAX: Final = 8 * 1024 * 1024
#: a frame of this size leaves before the turn of the loop ends, so that core commits the first
#: requests of a crowd while the others are still being verified
FRAME_BYTES_EARLY: Final = 24 * 1024
#: while core is at work for this process, what is submitted waits so long for more: it could not be
#: committed yet anyway, and a frame costs both sides as much as what is in it
GATHER_S: Final = 0.001
RECONNECT_S: Final = 0.05
WAITING_MAX: Final = 10_000

log = structlog.get_logger()


class _Submit(msgspec.Struct, array_like=True):
    number: int
    operation: str
    item: msgspec.Raw


class _Error(msgspec.Struct, array_like=True):
    kind: str
    detail: str
    retry_after_s: float | None = None
    pointers: list[tuple[str, str]] = []
    scope: str | None = None


class _Answer(msgspec.Struct, array_like=True):
    number: int
    error: _Error | None
    result: msgspec.Raw


class _Frame(msgspec.Struct, array_like=True):
    submits: list[_Submit] = []
    answers: list[_Answer] = []
    wakes: list[str] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Frame)
_NOTHING: Final = msgspec.Raw(_encoder.encode(None))


class _FrameProtocol(asyncio.Protocol):
    """Splits the byte stream into frames and sends frames once per turn of the loop."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._outgoing = _Frame([], [], [])
        self._outgoing_bytes = 0
        self._flush_scheduled = False
        self._gathering: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Frames leave when they are written; uvloop would gather them until the turn ends.
        self._transport.set_write_buffer_limits(high=0)

    @override
    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:  # noqa: PLR2004 - the length prefix
            length = int.from_bytes(buffer[start : start + 4])
            if length > FRAME_BYTES_MAX:
                self.close()
                return
            if len(buffer) - start - 4 < length:
                break
            try:
                frame = _decoder.decode(bytes(buffer[start + 4 : start + 4 + length]))
            except msgspec.MsgspecError:
                log.exception("frame.refused")
                self.close()
                return
            self.frame_received(frame)
            start += 4 + length
        del buffer[:start]

    def frame_received(self, frame: _Frame) -> None:
        """Handle one frame; the two sides differ here."""
        raise NotImplementedError  # pragma: no cover - both sides define it

    def outgoing(self) -> _Frame:
        """Return the frame that leaves at the end of this turn of the loop."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn_ended)
        return self._outgoing

    def _turn_ended(self) -> None:
        """Send what this turn of the loop has brought."""
        self._flush()

    def added(self, size_bytes: int) -> None:
        """Count what was put into the outgoing frame; a frame that grows large leaves at once."""
        self._outgoing_bytes += size_bytes
        if self._outgoing_bytes >= FRAME_BYTES_EARLY:
            self._flush()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        frame, self._outgoing, self._outgoing_bytes = self._outgoing, _Frame([], [], []), 0
        if not (frame.submits or frame.answers or frame.wakes):
            return
        if self._transport is not None and not self._transport.is_closing():
            body = _encoder.encode(frame)
            self._transport.write(len(body).to_bytes(4) + body)

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        if self._transport is not None:
            self._transport.close()


class _CoreSide(_FrameProtocol):
    """One connected process, seen from core."""

    def __init__(self, server: CoreServer) -> None:
        super().__init__()
        self._server = server

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.peers.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._server.peers.discard(self)

    @override
    def frame_received(self, frame: _Frame) -> None:
        for topic in frame.wakes:
            self._server.pass_on(topic, came_from=self)
        for submit in frame.submits:
            self._take(submit)

    def _take(self, submit: _Submit) -> None:
        operation = self._server.operations.get(submit.operation)
        if operation is None:
            unknown = Unavailable(f"core does not know {submit.operation!r}: versions differ")
            self._answer(submit.number, unknown, None)
            return
        try:
            item = msgspec.msgpack.decode(submit.item, type=operation.item)
            future = self._server.writer.enqueue(operation, item)
        except (Unavailable, msgspec.MsgspecError) as error:
            self._answer(submit.number, error, None)
            return
        future.add_done_callback(
            lambda done: self._answer(
                submit.number,
                done.exception(),
                None if done.exception() else done.result(),
            )
        )

    def _answer(self, number: int, error: BaseException | None, result: Any) -> None:
        raw = _NOTHING
        if error is None:
            try:
                raw = _raw(result)
            except (TypeError, ValueError, Unavailable):
                log.exception("answer.not_encoded")
                error = Unavailable("core answered something that cannot be sent.")
        told = None if error is None else _told(error)
        self.outgoing().answers.append(_Answer(number, told, raw))
        self.added(len(memoryview(raw)))


class CoreServer:
    """Core's end: takes submits into its LocalWriter and spreads wake-ups."""

    def __init__(
        self,
        writer: LocalWriter,
        notifier: Notifier,
        operations: Mapping[str, Operation[Any, Any]],
    ) -> None:
        self.writer = writer
        self.operations = operations
        self.peers: set[_FrameProtocol] = set()
        self._notifier = notifier
        notifier.forward_to(lambda topic: self._spread(topic, came_from=None))

    async def serve(self, path: Path) -> asyncio.Server:
        """Listen on the socket at `path`, which lies in a directory of this user only."""
        return await asyncio.get_running_loop().create_unix_server(
            lambda: _CoreSide(self), str(path)
        )

    def pass_on(self, topic: str, *, came_from: _FrameProtocol) -> None:
        """Wake this process and every other one than the sender."""
        self._notifier.deliver(topic)
        self._spread(topic, came_from=came_from)

    def _spread(self, topic: str, *, came_from: _FrameProtocol | None) -> None:
        if topic in CORE_TOPICS:
            # Every commit of an intake wakes the inbox: a frame to each process, and nobody there.
            return
        for peer in self.peers:
            if peer is not came_from:
                wakes = peer.outgoing().wakes
                if topic not in wakes:
                    wakes.append(topic)


class CoreClient(_FrameProtocol):
    """A Writer that sends to core, and the bridge of this process's wake-ups. Reconnects."""

    def __init__(self, path: Path, notifier: Notifier) -> None:
        super().__init__()
        self._path = path
        self._notifier = notifier
        self._waiting: dict[int, tuple[asyncio.Future[Any], type[Any]]] = {}
        self._next_number = 0
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        notifier.forward_to(self._send_wake)

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._buffer.clear()
                self._lost.clear()
                with contextlib.suppress(OSError):
                    await loop.create_unix_connection(lambda: self, str(self._path))
                    await self._lost.wait()
                await asyncio.sleep(RECONNECT_S)
        finally:
            self.close()

    async def connected(self, timeout_s: float) -> bool:
        """Wait until core answers; return whether it did within the time limit."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            return False
        return True

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connected.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connected.clear()
        self._lost.set()
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(Unavailable("core went away.", retry_after_s=1.0))

    async def submit(self, operation: Operation[ItemT, ResultT], item: ItemT) -> ResultT:
        """Send one item to core; return after its COMMIT. Errors as in `Writer`."""
        if self._transport is None:
            raise Unavailable("core is not reachable.", retry_after_s=1.0)
        if len(self._waiting) >= WAITING_MAX:
            raise errors.Overloaded("Too many writes wait for core.", retry_after_s=1.0)
        raw = _raw(item)
        self._next_number += 1
        number = self._next_number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, operation.result)
        self.outgoing().submits.append(_Submit(number, operation.name, raw))
        self.added(len(memoryview(raw)))
        result: ResultT = await future
        return result

    @override
    def _turn_ended(self) -> None:
        is_core_at_work = len(self._waiting) > len(self._outgoing.submits)
        if is_core_at_work and not self._outgoing.wakes:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._flush)
        else:
            self._flush()

    @override
    def frame_received(self, frame: _Frame) -> None:
        for topic in frame.wakes:
            self._notifier.deliver(topic)
        if frame.answers and self._gathering is not None:
            # Core has finished a batch and begins the next one.
            self._flush()
        for answer in frame.answers:
            future, result_type = self._waiting.pop(answer.number, (None, object))
            if future is None or future.done():
                continue
            if answer.error is not None:
                future.set_exception(_error_of(answer.error))
                continue
            try:
                future.set_result(msgspec.msgpack.decode(answer.result, type=result_type))
            except msgspec.MsgspecError as error:
                log.exception("answer.not_decoded")
                future.set_exception(Unavailable(f"core's answer is not understood: {error}"))

    def _send_wake(self, topic: str) -> None:
        if self._transport is not None:
            wakes = self.outgoing().wakes
            if topic not in wakes:
                wakes.append(topic)


def _raw(value: Any) -> msgspec.Raw:
    encoded = _encoder.encode(value)
    if len(encoded) > ITEM_BYTES_MAX:
        raise Unavailable(f"{len(encoded)} bytes are too many to send between processes.")
    return msgspec.Raw(encoded)


def _told(error: BaseException) -> _Error:
    """Return what the other process is told of an error of this one."""
    kind = type(error).__name__
    if isinstance(error, Unavailable):
        return _Error(kind, error.detail, retry_after_s=error.retry_after_s)
    if isinstance(error, Refused):
        scope = error.scope if isinstance(error, errors.Forbidden) else None
        return _Error(kind, error.detail, pointers=list(error.pointers), scope=scope)
    return _Error(kind, "core does not understand the item: versions differ")


def _error_of(told: _Error) -> Exception:
    kind: Any = getattr(errors, told.kind, Unavailable)
    error: Exception = Unavailable(told.detail)
    if issubclass(kind, errors.Forbidden):
        error = errors.Forbidden(told.detail, scope=told.scope)
    elif issubclass(kind, Refused):
        error = kind(told.detail, pointers=tuple(told.pointers))
    elif issubclass(kind, Unavailable) and told.retry_after_s is not None:
        error = kind(told.detail, retry_after_s=told.retry_after_s)
    return error
