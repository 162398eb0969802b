"""The HTTP protocol of the api process: uvicorn's, with a bound on headers and the certificate.

httptools keeps what it has read of a header until the header ends, without a limit, so the bytes
are counted where they arrive. What is answered most goes out in one piece (`answer_at_once`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from starlette.types import Send
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: request line and headers together
HEADER_BYTES_MAX: Final = 64 * 1024
TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class BoundedHTTPProtocol(HttpToolsProtocol):
    """Answers 431 and hangs up when a request's headers grow too large. Source: RFC 6585 §5."""

    #: bytes of a request whose headers have not ended; None while a body or nothing is read
    _header_bytes: int | None = None
    #: the client's certificate in PEM; uvicorn itself does not tell it
    _chain: tuple[str, ...] = ()

    @override
    def data_received(self, data: bytes) -> None:
        """Let uvicorn read, then see whether the headers are still going on."""
        super().data_received(data)
        if self._header_bytes is None:
            return
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES_MAX and not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take note of the certificate that the client proved to hold, if it did."""
        super().connection_made(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls else None
        if certificate:
            self._chain = (ssl.DER_cert_to_PEM_cert(certificate),)

    @override
    def on_message_begin(self) -> None:
        """Start to count, and say who is on the other side (ASGI's `tls` extension)."""
        self._header_bytes = 0
        super().on_message_begin()
        if self._chain:
            self.scope["extensions"] = {"tls": {"client_cert_chain": self._chain}}

    @override
    def on_headers_complete(self) -> None:
        """Stop to count."""
        self._header_bytes = None
        super().on_headers_complete()


def answer_at_once(send: Send, headers: bytes, body: bytes) -> bool:
    """Write a whole 200 in one piece; return whether that was possible, else `send` has to.

    send: of a request whose body was read. headers: lines that are constant, each with its end.
    uvicorn checks every header and writes headers and body apart, each a system call of its own;
    that is a sixth of the busiest request.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or not _is_ready(cycle):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    default = b"".join(b"%s: %s\r\n" % header for header in cycle.default_headers)
    length = len(body)
    cycle.transport.write(
        b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n%s\r\n%s" % (default, length, headers, body)
    )
    cycle.message_event.set()
    cycle.on_response()
    return True


def _is_ready(cycle: RequestResponseCycle) -> bool:
    """Return whether nothing about an answer to this request is special."""
    return (
        cycle.keep_alive
        and not cycle.more_body
        and not cycle.response_started
        and not cycle.disconnected
        and not cycle.flow.write_paused
    )
