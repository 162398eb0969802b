"""Client certificates on the hub's own TLS, with the hub as a server in processes of its own."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from hub.certificates import make_development_certificate
from hub.demo.processes import Http, HubProcess
from runtime.clock import SystemClock

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

LIMIT_S = 30.0


async def ask(
    url: str, trust: ssl.SSLContext, *, form: str | None = None, token: str | None = None
) -> tuple[int, dict[str, object]]:
    """Send one request over a connection of its own; return status and JSON."""
    parts = urlsplit(url)
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=trust)
        try:
            lines = [
                f"{'GET' if form is None else 'POST'} {parts.path} HTTP/1.1",
                f"host: {parts.netloc}",
                "connection: close",
                f"content-length: {len(form or '')}",
                "content-type: application/x-www-form-urlencoded",
            ]
            if token:
                lines.append(f"authorization: Bearer {token}")
            writer.write("\r\n".join([*lines, "", form or ""]).encode())
            answer = await reader.read()
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), msgspec.json.decode(body) if body else {}


async def list_clients(hub: HubProcess, authority: Path) -> int:
    """Run `signalhub client list --url …` with one more authority; return its exit code."""
    command = ("client", "list", f"--url={hub.url}", f"--token={hub.admin_token}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub.cli",
        *command,
        env={**os.environ, "SIGNALHUB_EXTRA_CA": str(authority)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


def trusting(folder: Path, client: str | None = None) -> ssl.SSLContext:
    """Return a client that trusts the authority in `folder`, with a certificate from there."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if client:
        certificate = folder / f"client-{client}.pem"
        context.load_cert_chain(certificate, folder / f"client-{client}-key.pem")
    return context


async def test_a_client_proves_itself_in_the_handshake_and_its_token_stays_with_it(
    tmp_path: Path,
) -> None:
    tls, elsewhere = tmp_path / "tls", tmp_path / "elsewhere"
    now = SystemClock().now()
    make_development_certificate(tls, ["127.0.0.1"], now=now, clients=["payroll", "other"])
    make_development_certificate(elsewhere, ["127.0.0.1"], now=now, clients=["payroll"])
    hub = HubProcess(
        tmp_path,
        admin_token="a" * 40,
        environment={
            "SIGNALHUB_TLS_CERT": str(tls / "cert.pem"),
            "SIGNALHUB_TLS_KEY": str(tls / "key.pem"),
            "SIGNALHUB_TLS_CLIENT_CA": str(tls / "ca.pem"),
        },
    )
    http = Http(extra_ca=str(tls / "ca.pem"))
    payroll, other, nobody = trusting(tls, "payroll"), trusting(tls, "other"), trusting(tls)
    try:
        await hub.start(http)
        body = {
            "name": "payroll",
            "scopes": ["ssf.read"],
            "auth_method": "tls_client_auth",
            "tls_subject": "CN=payroll",
        }
        made = await http.ask("POST", f"{hub.url}/admin/v1/clients", body, token=hub.admin_token)
        form = f"grant_type=client_credentials&client_id={made['id']}"
        status, told = await ask(f"{hub.url}/oauth/token", payroll, form=form)
        assert status == 200
        token = str(told["access_token"])
        for trust, expected in ((payroll, 200), (other, 401), (nobody, 401)):
            status, _ = await ask(f"{hub.url}/ssf/streams", trust, token=token)
            assert status == expected
        for trust in (other, nobody):
            status, told = await ask(f"{hub.url}/oauth/token", trust, form=form)
            assert (status, told["error"]) == (401, "invalid_client")
        # The same name, signed by somebody else: the handshake ends.
        stranger = trusting(tls)
        stranger.load_cert_chain(
            elsewhere / "client-payroll.pem", elsewhere / "client-payroll-key.pem"
        )
        # With TLS 1.3 the client learns it when it reads.
        with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
            await ask(f"{hub.url}/oauth/token", stranger, form=form)
        server_as_client = trusting(tls)
        server_as_client.load_cert_chain(tls / "cert.pem", tls / "key.pem")
        with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
            await ask(f"{hub.url}/oauth/token", server_as_client, form=form)
        # The command line, on another machine, trusts what EXTRA_CA names.
        assert await list_clients(hub, tls / "ca.pem") == 0
        assert await list_clients(hub, elsewhere / "ca.pem") != 0
        metadata = await http.ask("GET", f"{hub.url}/.well-known/ssf-configuration")
        assert {"spec_urn": "urn:ietf:rfc:8705"} in metadata["authorization_schemes"]
    finally:
        await hub.stop()
        await http.close()
    assert not hub.troubles()
