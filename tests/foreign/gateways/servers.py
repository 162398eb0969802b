"""Envoy and Traefik, with the very configuration that the guide shows, and a hub that speaks TLS.

The servers come as wheels, fixed with their checksums in `requirements.txt`; `make test-gateways`
puts them into `.tools/gateways`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import pytest

from hub.certificates import make_development_certificate
from runtime.clock import SystemClock
from tests.system.gateways import LIMIT_S, Places, block, free_address, put_in, running

PROGRAMS: Final = Path(__file__).parents[3] / ".tools/gateways"
#: the hub's name in the guide
HUB_NAME: Final = "hub.example.com"
NO_ROUTE: Final = 404
SYSTEM_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Certified:
    """A folder with a certificate for a hub on loopback, and with the authority that signed it."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def trust(self) -> ssl.SSLContext:
        """A client that trusts the authority and no other."""
        return ssl.create_default_context(cafile=self.authority)

    @property
    def settings(self) -> dict[str, str]:
        """What has the hub serve with it."""
        return {
            "SIGNALHUB_TLS_CERT": str(self.folder / "cert.pem"),
            "SIGNALHUB_TLS_KEY": str(self.folder / "key.pem"),
        }

    @contextmanager
    def envoy(self, folder: Path, places: Places) -> Iterator[str]:
        """Run Envoy; yields its address."""
        listen = free_address()
        text = put_in(block("yaml", "Envoy"), places, listen)
        for printed, here in (
            ("0.0.0.0, port_value: 8080", _socket(listen)),
            ("127.0.0.1, port_value: 3000", _socket(places.app)),
            (f"{HUB_NAME}, port_value: 443", _socket(urlsplit(places.hub).netloc)),
            (SYSTEM_AUTHORITIES, str(self.authority)),
        ):
            assert printed in text
            text = text.replace(printed, here)
        (folder / "envoy.yaml").write_text(text)
        command = [_program("envoy/_bin/envoy"), "-c", str(folder / "envoy.yaml")]
        # One thread each: the machine has other tests to run. No shared memory: others may run too.
        with running([*command, "--concurrency", "1", "--disable-hot-restart"], listen, folder):
            yield f"http://{listen}"

    @contextmanager
    def traefik(self, folder: Path, places: Places) -> Iterator[str]:
        """Run Traefik; yields its address."""
        listen = free_address()
        dynamic = folder / "signalhub.yaml"
        dynamic.write_text(put_in(block("yaml", "Traefik", at=1), places, listen))
        static = put_in(block("yaml", "Traefik"), places, listen)
        static = static.replace('":8080"', f'"{listen}"')
        static = static.replace("/etc/traefik/signalhub.yaml", str(dynamic))
        (folder / "traefik.yaml").write_text(static)
        command = [_program("bin/traefik"), f"--configFile={folder / 'traefik.yaml'}"]
        with running(command, listen, folder, {"SSL_CERT_FILE": str(self.authority)}):
            # It listens before it has read the file with the routes.
            until = time.monotonic() + LIMIT_S
            while httpx2.get(f"http://{listen}/", timeout=LIMIT_S).status_code == NO_ROUTE:
                assert time.monotonic() < until, (folder / "log").read_text()
            yield f"http://{listen}"


def certify(folder: Path, name: str = HUB_NAME) -> Certified:
    """Make a certificate for loopback and a name."""
    make_development_certificate(folder, ["127.0.0.1", name], now=SystemClock().now())
    return Certified(folder)


def _program(path: str) -> str:
    found = PROGRAMS / path
    if not found.exists():
        pytest.fail(f"no {found}: run 'make test-gateways', which fetches it")
    return str(found)


def _socket(address: str) -> str:
    host, _, port = address.partition(":")
    return f"{host}, port_value: {port}"
