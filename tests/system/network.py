"""The way between a browser and the gateway, which changes when a laptop is carried elsewhere.

A browser on loopback has one address only. This stands where the last router would: it hands every
request on unchanged and says from which address it came, as a proxy of the gateway's own does.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

LIMIT_S = 30.0
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "x-forwarded-for"})


class Network(ThreadingHTTPServer):
    """address: from where requests come now. gateway: `host:port` where they go."""

    address = "198.51.100.7"
    gateway = ""

    @property
    def url(self) -> str:
        """Where browsers go."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Hop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Network

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP
        }
        link = http.client.HTTPConnection(self.server.gateway, timeout=LIMIT_S)
        headers["X-Forwarded-For"] = self.server.address
        link.request(self.command, self.path, body or None, headers)
        answer = link.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        link.close()

    do_GET = do_POST = pass_on  # noqa: N815 - the library's names

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def network() -> Iterator[Network]:
    """Run the way until the block is left; its gateway is set before the first request."""
    server = Network(("127.0.0.1", 0), _Hop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
