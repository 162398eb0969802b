"""One HTTP/1.1 connection of ours to a stranger's server: one request, one answer, then the next.

    exchange(request bytes) ─▶ transport ─▶ … ─▶ httptools ─▶ RawAnswer, or why there is none

Whatever the other side sends, the future of `exchange` is done before its time limit, with at most
`body_bytes_max` kept. A connection is used again only when both sides have said all they had to
say: what comes unasked ends it, so that no answer is taken for another request's.
Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import httptools
from typing_extensions import override

from runtime.errors import BodyTooLarge, ConnectFailed, TimedOut, Unavailable

#: status line and headers, and trailers, of one answer
HEAD_BYTES_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 256
#: answers of the class 1xx before the final one
INTERIM_ANSWERS_MAX: Final = 8
_FINAL: Final = 200
_SWITCHING_PROTOCOLS: Final = 101
_WITHOUT_BODY: Final = frozenset({204, 304})


@dataclass(slots=True)
class RawAnswer:
    """A final answer; header names are lower case, of a repeated header the last one counts."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """A connection, made by `loop.create_connection`.

    opened_at_s: of the loop's clock. on_lost: told when it is closed, whoever closed it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[Connection], None]
    ) -> None:
        self.opened_at_s = loop.time()
        self._loop = loop
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[RawAnswer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._body_bytes_max = 0
        self._interim_answers = 0
        self._is_clean = True
        self._begin_answer()

    @property
    def is_usable(self) -> bool:
        """Whether the next request may go over it."""
        return (
            self._is_clean
            and self._answer is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def exchange(
        self, request: bytes, *, timeout_s: float, body_bytes_max: int
    ) -> asyncio.Future[RawAnswer]:
        """Send a request and return the future of its answer.

        The future fails with TimedOut, BodyTooLarge or ConnectFailed. It must be
        usable.
        """
        if self._transport is None or not self.is_usable:
            raise ConnectFailed("The connection is closed.")
        self._answer = answer = self._loop.create_future()
        self._body_bytes_max = body_bytes_max
        self._interim_answers = 0
        self._timer = self._loop.call_later(max(timeout_s, 0.0), self._time_out)
        self._transport.write(request)
        return answer

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._is_clean = False
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            # Nobody asked: what comes now must not be taken for the next answer.
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectFailed(f"The answer is not HTTP: {type(error).__name__}."))
            return
        if not self._head_is_complete:
            self._head_grows(len(data))

    @override
    def eof_received(self) -> bool:
        # The transport closes itself, and `connection_lost` judges what came.
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None:
            if exc is None and self._head_is_complete and self._ends_with_connection:
                self._complete(keeps_alive=False)
            else:
                self._fail(ConnectFailed("The connection ended before the answer did."))
        # Parser and connection hold each other; nothing comes any more.
        del self._parser
        self._on_lost(self)

    # --- what httptools calls ---

    def on_message_begin(self) -> None:
        """Note that something begins, which nobody may have asked for."""
        if self._answer is None:
            self._is_clean = False
        self._begin_answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header or a trailer."""
        self._head_grows(len(name) + len(value))
        self._header_count += 1
        if self._header_count > HEADERS_MAX:
            self._fail(ConnectFailed("The answer has too many headers."))
        elif not self._head_is_complete:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Decide how the body ends."""
        self._head_is_complete = True
        self._ends_with_connection = (
            "content-length" not in self._headers
            and "transfer-encoding" not in self._headers
            and self._parser.get_status_code() not in _WITHOUT_BODY
        )

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._body += part
        if len(self._body) > self._body_bytes_max:
            self._body.clear()
            self._fail(BodyTooLarge(f"The answer is larger than {self._body_bytes_max} bytes."))

    def on_message_complete(self) -> None:
        """Give the answer to whoever waits, unless it is one of the class 1xx."""
        status = self._parser.get_status_code()
        if status >= _FINAL:
            self._complete(keeps_alive=self._parser.should_keep_alive())
            return
        self._interim_answers += 1
        if status == _SWITCHING_PROTOCOLS or self._interim_answers > INTERIM_ANSWERS_MAX:
            self._fail(ConnectFailed("The answer is none to this request."))
        self._begin_answer()

    # --- steps ---

    def _begin_answer(self) -> None:
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._body = bytearray()
        self._head_is_complete = False
        self._ends_with_connection = False

    def _head_grows(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._fail(ConnectFailed(f"The answer's head is larger than {HEAD_BYTES_MAX} bytes."))

    def _complete(self, *, keeps_alive: bool) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            self._is_clean = False
            return
        self._stop_timer()
        if not keeps_alive or self._transport is None or self._transport.get_write_buffer_size():
            # An answer that came before all of the request was sent: the rest may be misread.
            self._is_clean = False
        if not answer.done():
            answer.set_result(
                RawAnswer(self._parser.get_status_code(), self._headers, bytes(self._body))
            )

    def _time_out(self) -> None:
        self._fail(TimedOut("The other side did not answer in time."))

    def _fail(self, error: Unavailable) -> None:
        answer, self._answer = self._answer, None
        self._stop_timer()
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
