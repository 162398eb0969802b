"""The hub's own TLS: what it speaks, what it refuses to start with, and renewal while it serves."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.bootstrap import check_certificate
from hub.certificates import make_development_certificate
from hub.settings import Settings, SettingsError
from hub.tls import CertificateFiles, keep_fresh
from runtime.clock import SystemClock

HOST = "127.0.0.1"
LIMIT_S = 10.0


def make(folder: Path) -> CertificateFiles:
    """Make a certificate for loopback in `folder`."""
    make_development_certificate(folder, [HOST, "localhost"], now=SystemClock().now())
    return CertificateFiles(certificate=str(folder / "cert.pem"), key=str(folder / "key.pem"))


def put(new: Path, file: str) -> None:
    """Write a renewed file in place."""
    Path(file).write_bytes(new.read_bytes())


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve TLS with `context`; yield the port."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def connect(port: int, trust: ssl.SSLContext, *, name: str = HOST) -> ssl.SSLObject:
    """Return what a new connection agreed on. Raises ssl.SSLError."""
    _, writer = await asyncio.open_connection(HOST, port, ssl=trust, server_hostname=name)
    agreed: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return agreed


def trusting(folder: Path) -> ssl.SSLContext:
    """Return a client that trusts the authority in `folder` and no other."""
    return ssl.create_default_context(cafile=folder / "ca.pem")


async def test_a_made_certificate_serves_tls_1_2_and_1_3_to_who_trusts_it(tmp_path: Path) -> None:
    files = make(tmp_path)
    async with serving(files.context()) as port:
        newest = await connect(port, trusting(tmp_path))
        assert newest.version() == "TLSv1.3"
        assert (await connect(port, trusting(tmp_path), name="localhost")).version() == "TLSv1.3"
        older = trusting(tmp_path)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        agreed = await connect(port, older)
        assert agreed.version() == "TLSv1.2"
        cipher = agreed.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(port, ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(port, trusting(tmp_path), name="hub.example")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.requirement("INT-1", "CTC-3")
async def test_a_client_that_offers_only_tls_1_1_is_refused(tmp_path: Path) -> None:
    files = make(tmp_path)
    oldest = trusting(tmp_path)
    lenient = files.context()
    for context in (oldest, lenient):
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    oldest.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(lenient) as port:
        assert (await connect(port, oldest)).version() == "TLSv1.1"
    async with serving(files.context()) as port:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await connect(port, oldest)


async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    files = make(tmp_path)
    context = files.context()
    renewal = tmp_path / "renewal"
    make(renewal)
    keeper = asyncio.create_task(keep_fresh(context, files, look_again_s=0.01))
    try:
        async with serving(context) as port, asyncio.timeout(LIMIT_S):
            await connect(port, trusting(tmp_path))
            # In the middle of a renewal the key does not fit the certificate.
            put(renewal / "key.pem", files.key)
            for _ in range(5):
                await connect(port, trusting(tmp_path))
            put(renewal / "cert.pem", files.certificate)
            while True:
                try:
                    await connect(port, trusting(renewal))
                    break
                except ssl.SSLCertVerificationError:
                    continue
    finally:
        keeper.cancel()


def test_the_key_is_private_and_nothing_is_overwritten(tmp_path: Path) -> None:
    files = make(tmp_path)
    assert stat.S_IMODE(Path(files.key).stat().st_mode) == 0o600
    before = Path(files.key).read_bytes()
    with pytest.raises(FileExistsError):
        make(tmp_path)
    assert Path(files.key).read_bytes() == before


def test_a_hub_does_not_start_with_a_certificate_it_cannot_serve(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    for certificate, key in (
        (one.certificate, other.key),
        (one.certificate, str(tmp_path / "none.pem")),
        (one.key, one.key),
    ):
        settings = Settings(
            dev_insecure=True,
            data_dir=tmp_path,
            database_url=f"sqlite:///{tmp_path}/hub.db",
            tls_cert=Path(certificate),
            tls_key=Path(key),
        )
        with pytest.raises(SettingsError, match="SIGNALHUB_TLS_CERT/SIGNALHUB_TLS_KEY"):
            check_certificate(settings)


def test_the_issuer_that_is_made_up_says_https_when_the_hub_serves_it(tmp_path: Path) -> None:
    files = make(tmp_path)
    tls: dict[str, Any] = {"tls_cert": Path(files.certificate), "tls_key": Path(files.key)}
    assert Settings(dev_insecure=True).issuer_at(8423) == "http://127.0.0.1:8423"
    assert Settings(dev_insecure=True, **tls).issuer_at(8423) == "https://127.0.0.1:8423"
    named = Settings(issuer="https://hub.example", **tls)
    assert named.issuer_at(8423) == "https://hub.example"


def test_half_of_the_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set both tls_cert and tls_key"):
        Settings(dev_insecure=True, tls_cert=tmp_path / "cert.pem")
