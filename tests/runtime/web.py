"""Real servers on loopback for the outbound clients: well-behaved, slow, and hostile ones."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runtime.clock import SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it reached the server."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Site:
    """A listening server and what reached it. `connections` counts also those without a request."""

    port: int
    requests: list[Seen] = field(default_factory=list)
    connections: list[object] = field(default_factory=list)

    def url(self, path: str = "/", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        """Return an URL of this server."""
        return f"{scheme}://{host}:{self.port}{path}"


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def _status(request: web.Request) -> web.Response:
    headers = {"Retry-After": "120", "Location": "/echo", "X-Mixed-Case": "yes"}
    return web.Response(status=int(request.match_info["status"]), headers=headers)


async def _bytes(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * int(request.match_info["size"]))


async def _endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * 4_096)


async def _drip(request: web.Request) -> web.StreamResponse:
    """Send one byte whenever the reader might give up: never silent, never done."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x")
        await asyncio.sleep(0.02)


async def _never(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def _cookie(request: web.Request) -> web.Response:
    answer = web.Response(text=request.headers.get("Cookie", ""))
    answer.set_cookie("session", "stolen")
    return answer


def _routes() -> list[web.RouteDef]:
    pages: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        "/echo": _echo,
        "/status/{status}": _status,
        "/bytes/{size}": _bytes,
        "/endless": _endless,
        "/drip": _drip,
        "/never": _never,
        "/cookie": _cookie,
    }
    return [web.route("*", path, handler) for path, handler in pages.items()]


@asynccontextmanager
async def site(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    """Serve the pages above on a free port of 127.0.0.1."""
    requests: list[Seen] = []

    @web.middleware
    async def note(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        requests.append(
            Seen(
                method=request.method,
                path=request.path_qs,
                headers=dict(request.headers),
                body=await request.read(),
            )
        )
        return await handler(request)

    application = web.Application(middlewares=[note])
    application.add_routes(_routes())
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await listener.start()
    try:
        yield Site(runner.addresses[0][1], requests)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bait() -> AsyncIterator[Site]:
    """Listen on a free port of 127.0.0.1 and count every connection, whatever it says."""
    connections: list[object] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield Site(server.sockets[0].getsockname()[1], [], connections)


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[Site]:
    """Answer every connection with these bytes after its first line, and close it."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield Site(server.sockets[0].getsockname()[1])


class Authority:
    """A certificate authority of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        own = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(
            own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = SystemClock().now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def server(self, *hosts: str) -> ssl.SSLContext:
        """Return the TLS side of a server whose certificate names `hosts`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(host) for host in hosts]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{hosts[0]}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
