"""Client certificates: whom they name, who may tell of them, and tokens that are bound to them."""

from __future__ import annotations

import base64
import dataclasses
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.app import make_app
from hub.oauth.certificates import (
    SPEC_URN,
    canonical_subject,
    certificate_of,
    names_of,
    thumbprint_of,
)
from hub.settings import Settings
from runtime.clock import SystemClock
from ssf.jose import split_jws
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub

PROXY = "10.0.0.7"
HEADER = "Client-Cert"
SUBJECT = "CN=payroll,O=Customer"


def certificate(
    subject: str = SUBJECT, *, dns: tuple[str, ...] = (), uris: tuple[str, ...] = ()
) -> bytes:
    """Return a certificate (DER) as an authority would have signed it."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = SystemClock().now()
    names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def told(der: bytes) -> dict[str, str]:
    """Return the header by which a proxy tells of a certificate (RFC 9440)."""
    return {HEADER: f":{base64.b64encode(der).decode()}:"}


@pytest.fixture(scope="module")
def own() -> bytes:
    return certificate()


class Behind:
    """The hub as it is reached through a proxy that ends TLS for it."""

    def __init__(self, hub: Hub, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "trusted_proxies": ("10.0.0.0/8",),
            "client_cert_header": HEADER,
            **changes,
        }
        config = msgspec.structs.replace(hub.node.config, **settings)
        self.hub = hub
        self.app = make_app(dataclasses.replace(hub.node, config=config), hub.outside)

    @asynccontextmanager
    async def client(
        self, token: str | None = None, *, address: str = PROXY
    ) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        transport = httpx2.ASGITransport(self.app, client=(address, 50_000))
        async with httpx2.AsyncClient(
            transport=transport, base_url=ISSUER, headers=headers
        ) as http:
            yield http

    async def add(self, subject: str = SUBJECT) -> str:
        """Make a client that proves itself by a certificate; return its id."""
        body = {
            "name": f"client {subject}",
            "scopes": ["ssf.read"],
            "auth_method": "tls_client_auth",
            "tls_subject": subject,
        }
        async with self.hub.client(await self.hub.token()) as admin:
            made = await admin.post("/admin/v1/clients", json=body)
            assert made.status_code == 201, made.text
            assert made.json()["token"] is None
        await self.hub.node.feed.refresh()
        client_id: str = made.json()["id"]
        return client_id

    async def ask(
        self, client_id: str, headers: dict[str, str], *, address: str = PROXY, **form: str
    ) -> httpx2.Response:
        body = {"grant_type": "client_credentials", "client_id": client_id, **form}
        async with self.client(address=address) as http:
            return await http.post("/oauth/token", data=body, headers=headers)


@pytest.fixture
def behind(hub: Hub) -> Behind:
    return Behind(hub)


@ONE_ENGINE
async def test_a_certificate_gets_a_token_that_only_it_can_use(behind: Behind, own: bytes) -> None:
    client_id = await behind.add()
    answer = await behind.ask(client_id, told(own))
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    claims = msgspec.json.decode(split_jws(token.encode()).payload)
    assert claims["cnf"] == {"x5t#S256": thumbprint_of(own)}
    async with behind.client(token) as http:
        assert (await http.get("/ssf/streams", headers=told(own))).status_code == 200
        for headers in ({}, told(certificate()), {HEADER: "nonsense"}, {HEADER: ""}):
            refused = await http.get("/ssf/streams", headers=headers)
            assert refused.status_code == 401
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    # A thief who is no proxy cannot make the header count.
    async with behind.client(token, address="192.0.2.9") as http:
        assert (await http.get("/ssf/streams", headers=told(own))).status_code == 401


@ONE_ENGINE
async def test_a_certificate_of_somebody_else_proves_nothing(behind: Behind, own: bytes) -> None:
    client_id = await behind.add()
    by_secret = (await _secret_client(behind.hub))["id"]
    for name, headers, address in (
        (client_id, {}, PROXY),
        (client_id, told(certificate("CN=payroll")), PROXY),
        (client_id, told(certificate("O=Customer,CN=payroll")), PROXY),
        (client_id, told(certificate("CN=payroll,O=Customer,C=SE")), PROXY),
        (client_id, told(certificate("CN=x", dns=("payroll",))), PROXY),
        (client_id, told(own), "192.0.2.9"),
        (client_id, {"X-Client-Cert": told(own)[HEADER]}, PROXY),
        (by_secret, told(own), PROXY),
        ("cli_nobody", told(own), PROXY),
        ("", told(own), PROXY),
    ):
        answer = await behind.ask(name, headers, address=address)
        assert answer.status_code == 401, (name, address)
        assert answer.json()["error"] == "invalid_client"
    with_secret = await behind.ask(client_id, {}, client_secret="x")
    assert with_secret.status_code == 401


@ONE_ENGINE
async def test_two_certificates_in_one_request_are_none(behind: Behind, own: bytes) -> None:
    client_id = await behind.add()
    both = [(HEADER, told(own)[HEADER]), (HEADER, told(certificate())[HEADER])]
    body = {"grant_type": "client_credentials", "client_id": client_id}
    async with behind.client() as http:
        answer = await http.post("/oauth/token", data=body, headers=both)
    assert answer.status_code == 401


@ONE_ENGINE
@pytest.mark.parametrize(
    ("subject", "der"),
    [
        ("dns:Payroll.customer.example", certificate("CN=x", dns=("payroll.Customer.example",))),
        ("uri:spiffe://customer/payroll", certificate("CN=x", uris=("spiffe://customer/payroll",))),
        ("CN=payroll,O=Customer", certificate("CN=payroll,O=Customer")),
        ("CN=a\\,b", certificate("CN=a\\,b")),
    ],
)
async def test_a_client_is_named_by_subject_or_alternative_name(
    behind: Behind, subject: str, der: bytes
) -> None:
    client_id = await behind.add(subject)
    assert (await behind.ask(client_id, told(der))).status_code == 200


@ONE_ENGINE
@pytest.mark.parametrize("subject", ["nonsense", "", "dns:", "CN", "=x", "ip:10.0.0.1"])
async def test_a_name_that_no_certificate_has_is_refused(hub: Hub, subject: str) -> None:
    body = {
        "name": "x",
        "scopes": ["ssf.read"],
        "auth_method": "tls_client_auth",
        "tls_subject": subject,
    }
    async with hub.client(await hub.token()) as admin:
        assert (await admin.post("/admin/v1/clients", json=body)).status_code == 400


def test_proxies_tell_of_a_certificate_in_several_forms(own: bytes) -> None:
    plain = base64.b64encode(own).decode()
    pem = ssl.DER_cert_to_PEM_cert(own)
    for value in (f":{plain}:", plain, quote(pem), quote(pem.strip())):
        assert certificate_of(value) == own
    for value in ("", ":", "::", ":AAAA:", "%00", quote("-----BEGIN CERTIFICATE-----"), "é" * 9):
        assert certificate_of(value) is None
    assert certificate_of(f":{'A' * 20_000}:") is None
    assert names_of(b"nonsense") == frozenset()
    assert names_of(own) == {canonical_subject(SUBJECT)}


@ONE_ENGINE
async def test_a_static_token_and_a_secret_are_not_bound(behind: Behind, own: bytes) -> None:
    token = await behind.hub.token("ssf.read")
    for headers in ({}, told(own)):
        async with behind.client(token) as http:
            assert (await http.get("/ssf/streams", headers=headers)).status_code == 200


@ONE_ENGINE
async def test_failures_are_counted_by_the_address_that_the_proxy_tells(behind: Behind) -> None:
    """Without it everybody behind the proxy would share one count."""
    client_id = await behind.add()
    for _ in range(20):
        await behind.ask(client_id, {"X-Forwarded-For": "198.51.100.1, 203.0.113.9, 10.0.0.8"})
    forged = "1.2.3.4, 203.0.113.9, 10.0.0.8"
    assert (await behind.ask(client_id, {"X-Forwarded-For": forged})).status_code == 429
    other = {"X-Forwarded-For": "203.0.113.10"}
    assert (await behind.ask(client_id, other)).status_code == 401
    direct = await behind.ask(client_id, {"X-Forwarded-For": "203.0.113.9"}, address="192.0.2.4")
    assert direct.status_code == 401


@ONE_ENGINE
async def test_metadata_offers_certificates_only_where_they_are_taken(
    behind: Behind, hub: Hub
) -> None:
    async with behind.client() as http, hub.client() as plain:
        for client, offered in ((http, True), (plain, False)):
            server = (await client.get("/.well-known/oauth-authorization-server")).json()
            methods = server["token_endpoint_auth_methods_supported"]
            assert ("tls_client_auth" in methods) == offered
            assert server["tls_client_certificate_bound_access_tokens"] == offered
            transmitter = (await client.get("/.well-known/ssf-configuration")).json()
            urns = [scheme["spec_urn"] for scheme in transmitter["authorization_schemes"]]
            assert urns == ["urn:ietf:rfc:6749", *([SPEC_URN] if offered else [])]


def test_settings_that_would_trust_anybody_are_refused(tmp_path: Path) -> None:
    wrong: tuple[Mapping[str, Any], ...] = (
        {"client_cert_header": HEADER},
        {"trusted_proxies": "10.0.0.0/8, nonsense"},
        {"trusted_proxies": "10.0.0.0/8", "client_cert_header": "a header"},
        {"tls_client_ca": tmp_path / "ca.pem"},
    )
    for settings in wrong:
        with pytest.raises(ValueError, match=r"client_cert_header|trusted_proxies|tls_client_ca"):
            Settings(dev_insecure=True, **settings)
    given = Settings(dev_insecure=True, trusted_proxies="10.0.0.0/8, fd00::/8")  # type: ignore[arg-type]
    assert given.trusted_proxies == ("10.0.0.0/8", "fd00::/8")


async def _secret_client(hub: Hub) -> dict[str, Any]:
    async with hub.client(await hub.token()) as admin:
        body = {"name": "by secret", "scopes": ["ssf.read"]}
        made: dict[str, Any] = (await admin.post("/admin/v1/clients", json=body)).json()
    await hub.node.feed.refresh()
    return made
