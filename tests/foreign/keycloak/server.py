"""Keycloak as transmitter of Shared Signals: the distribution of Maven Central, as a process."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.system.gateways import free_address, program

VERSION: Final = "26.7.3"
ARTIFACT: Final = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
SHA256: Final = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
GET: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get"
FETCH_S: Final = 600
START_S: Final = 180.0
ASK_S: Final = 30.0
REALM: Final = "corp"
ADMIN: Final = "admin"
USER: Final = {"id": "6f0f0ac5-2f5a-4b0e-9c1e-2f2a53b6c001", "email": "ann@corp.example"}
AUDIENCE: Final = "https://hub.example"


def distribution() -> Path:
    """Return the distribution's archive, fetched by Maven if it is not there yet."""
    name = f"org/keycloak/keycloak-quarkus-dist/{VERSION}/keycloak-quarkus-dist-{VERSION}.zip"
    archive = Path.home() / ".m2/repository" / name
    if not archive.exists():
        done = subprocess.run(
            [
                program("mvn", "maven"),
                "-B",
                "-q",
                GET,
                "-Dtransitive=false",
                f"-Dartifact={ARTIFACT}",
            ],
            capture_output=True,
            text=True,
            timeout=FETCH_S,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"fetching {ARTIFACT} failed: {done.stdout[-1000:]}")
    with archive.open("rb") as opened:
        assert hashlib.file_digest(opened, "sha256").hexdigest() == SHA256
    return archive


def client(name: str, **attributes: str) -> dict[str, Any]:
    """Return a receiver: what Keycloak calls a client with a service account."""
    return {
        "clientId": name,
        "secret": f"secret of {name}",
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "optionalClientScopes": ["ssf.read", "ssf.manage"],
        "attributes": {"ssf.enabled": "true", "ssf.defaultSubjects": "ALL", **attributes},
    }


REALM_SETTINGS: Final = {
    "realm": REALM,
    "enabled": True,
    "attributes": {"ssf.transmitterEnabled": "true"},
}
ANN: Final = {
    **USER,
    "username": "ann",
    "firstName": "Ann",
    "lastName": "Lee",
    "enabled": True,
    "emailVerified": True,
    "credentials": [{"type": "password", "value": "ann's"}],
}


@dataclass
class Keycloak:
    """One that runs."""

    base: str

    @property
    def issuer(self) -> str:
        return f"{self.base}/realms/{REALM}"

    def _token(self, realm_name: str, form: Mapping[str, str]) -> str:
        answer = httpx2.post(
            f"{self.base}/realms/{realm_name}/protocol/openid-connect/token",
            data={"grant_type": "password", **form},
            timeout=ASK_S,
        )
        assert answer.is_success, answer.text
        token: str = answer.json()["access_token"]
        return token

    def sign_in(self) -> None:
        """Have the user sign in to an app."""
        self._token(REALM, {"client_id": "portal", "username": "ann", "password": "ann's"})

    def administer(self, method: str, path: str, body: object = None) -> None:
        """Do something as an administrator."""
        form = {"client_id": "admin-cli", "username": ADMIN, "password": ADMIN}
        answer = httpx2.request(
            method,
            f"{self.base}/admin/realms{path}",
            headers={"authorization": f"Bearer {self._token('master', form)}"},
            json=body,
            timeout=ASK_S,
        )
        assert answer.is_success, answer.text

    def set_up(self, push_urls: str) -> None:
        """Make a realm that transmits, with a user, an app and three receivers."""
        self.administer("POST", "", REALM_SETTINGS)
        imported = {"ifResourceExists": "FAIL", "users": [ANN]}
        self.administer("POST", f"/{REALM}/partialImport", imported)
        audience = {"ssf.streamAudience": AUDIENCE}
        portal = {"clientId": "portal", "publicClient": True, "directAccessGrantsEnabled": True}
        for one in (
            portal,
            client("polls", **audience),
            client("pushed", **audience, **{"ssf.validPushUrls": push_urls}),
            client("as-it-comes"),
        ):
            self.administer("POST", f"/{REALM}/clients", one)

    def log_out(self) -> None:
        """Sign the user out everywhere, as an administrator does."""
        self.administer("POST", f"/{REALM}/users/{USER['id']}/logout")

    def reset_password(self) -> None:
        """Set the user's password anew, as an administrator."""
        credential = {"type": "password", "value": "ann's", "temporary": False}
        self.administer("PUT", f"/{REALM}/users/{USER['id']}/reset-password", credential)


@contextmanager
def keycloak(folder: Path, push_urls: str) -> Iterator[Keycloak]:
    """Run Keycloak in its development mode, with its transmitter switched on."""
    program("java", "default-jre-headless")
    with zipfile.ZipFile(distribution()) as archive:
        archive.extractall(folder)
    home = folder / f"keycloak-{VERSION}"
    host, _, port = free_address().partition(":")
    option = "--spi-ssf-transmitter--default--"
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *("sh", str(home / "bin/kc.sh"), "start-dev", "--features=ssf"),
                *(f"--http-host={host}", f"--http-port={port}", "--http-management-port=0"),
                f"{option}outbox-drainer-interval=500ms",
                f"{option}min-verification-interval-seconds=0",
                f"{option}allow-insecure-push-targets=true",
            ],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={
                **os.environ,
                "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
                "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN,
            },
        )
    try:
        found = Keycloak(f"http://{host}:{port}")
        _wait_for(found, process, log)
        found.set_up(push_urls)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(found: Keycloak, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx2.get(f"{found.base}/realms/master", timeout=ASK_S)
        except httpx2.TransportError:
            continue
        if answer.is_success:
            return
    pytest.fail(f"Keycloak does not start: {log.read_text()[-3000:]}")
