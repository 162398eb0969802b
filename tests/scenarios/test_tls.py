"""`signalhub serve` on its own TLS, set up with nothing but the command line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from hub.demo.processes import Http, HubProcess
from runtime.errors import Unavailable

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]


@pytest.mark.requirement("INT-1")
async def test_a_hub_with_a_made_certificate_serves_https_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub.cli",
        "certificate",
        "127.0.0.1",
        f"--folder={folder}",
        stdout=subprocess.PIPE,
    )
    told, _ = await made.communicate()
    assert made.returncode == 0
    assert b"SIGNALHUB_TLS_CERT=" in told

    environment = {
        "SIGNALHUB_TLS_CERT": str(folder / "cert.pem"),
        "SIGNALHUB_TLS_KEY": str(folder / "key.pem"),
    }
    hub = HubProcess(tmp_path, admin_token="a" * 40, environment=environment)
    http, stranger = Http(extra_ca=str(folder / "ca.pem")), Http()
    try:
        await hub.start(http)
        metadata = await http.ask("GET", f"{hub.url}/.well-known/ssf-configuration")
        assert metadata["issuer"] == hub.url
        assert metadata["jwks_uri"].startswith("https://")
        with pytest.raises(Unavailable):
            await stranger.request("GET", f"{hub.url}/healthz")
        with pytest.raises(Unavailable):
            await http.request("GET", f"http://127.0.0.1:{hub.port}/healthz")
    finally:
        await hub.stop()
        await http.close()
        await stranger.close()
    assert not hub.troubles()
