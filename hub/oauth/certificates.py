"""Client certificates: which one a request came with, whom it names, and what is bound to it.

    TLS of our own (TLS_CLIENT_CA) ──────────────┐
    header of a proxy that ended TLS for us ─────┴─▶ scope["certificate"] ─▶ client, bound tokens

Source: RFC 8705, RFC 9440.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import ssl
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import structlog
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from starlette.types import ASGIApp, Receive, Scope, Send

METHOD: Final = "tls_client_auth"
SPEC_URN: Final = "urn:ietf:rfc:8705"
HEADER_CHARACTERS_MAX: Final = 16 * 1024
CERTIFICATES_REMEMBERED_MAX: Final = 256
ADDRESSES_MAX: Final = 32
_PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"

log = structlog.get_logger()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Confirmation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token is bound to: the thumbprint of a certificate. Source: RFC 8705 §3.1."""

    thumbprint: str | None = msgspec.field(default=None, name="x5t#S256")


def is_bound_to(cnf: Confirmation | None, thumbprint: str | None) -> bool:
    """Tell whether a token may be used with this certificate.

    A binding of another kind is one that we cannot check, so it is never met.
    """
    if cnf is None:
        return True
    if cnf.thumbprint is None or thumbprint is None:
        return False
    return hmac.compare_digest(cnf.thumbprint.encode(), thumbprint.encode())


def thumbprint_of(certificate: bytes | None) -> str | None:
    """Return the SHA-256 thumbprint of a certificate in DER, base64url; None of none."""
    if certificate is None:
        return None
    digest = hashlib.sha256(certificate).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@lru_cache(maxsize=CERTIFICATES_REMEMBERED_MAX)
def names_of(certificate: bytes) -> frozenset[str]:
    """Return whom a certificate names: its subject in canonical form, `dns:…` and `uri:…`.

    Empty when it cannot be read. Source: RFC 8705 §2.1.2.
    """
    try:
        read = x509.load_der_x509_certificate(certificate)
        names = {canonical_subject(read.subject.rfc4514_string())} if read.subject.rdns else set()
        try:
            alternative: Any = read.extensions.get_extension_for_oid(
                ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            ).value
        except x509.ExtensionNotFound:
            return frozenset(names)
        names |= {f"dns:{name.lower()}" for name in alternative.get_values_for_type(x509.DNSName)}
        names |= {
            f"uri:{name}"
            for name in alternative.get_values_for_type(x509.UniformResourceIdentifier)
        }
    except ValueError:
        return frozenset()
    return frozenset(names)


def canonical_subject(text: str) -> str:
    """Return a `tls_subject` in the one form that compares. Raises ValueError."""
    kind, _, name = text.partition(":")
    if kind in {"dns", "uri"} and name:
        return f"dns:{name.lower()}" if kind == "dns" else text
    subject = x509.Name.from_rfc4514_string(text)
    if not subject.rdns:
        raise ValueError("an empty name")
    return subject.rfc4514_string()


class PeerFront:
    """Pure ASGI middleware: who is on the other side, also through a proxy that we trust.

    Sets `scope["certificate"]` (DER, or it is not there) and, behind a trusted proxy,
    `scope["client"]`. What others send in these headers is ignored.
    """

    def __init__(
        self, app: ASGIApp, *, trusted: tuple[str, ...] = (), header: str | None = None
    ) -> None:
        """trusted: networks of proxies. header: in which they tell of the client's certificate."""
        self._app = app
        self._trusted = tuple(ipaddress.ip_network(network) for network in trusted)
        self._header = header.lower().encode() if header else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with the peer found out."""
        found = self.found(scope)
        await self._app({**scope, **found} if found else scope, receive, send)

    def found(self, scope: Scope) -> dict[str, Any]:
        """Return what of the scope is otherwise than the connection says. Raises nothing."""
        client = scope.get("client")
        if self._trusted and client and self._is_trusted(client[0]):
            return self._as_told(scope, client)
        if "extensions" in scope:
            chain = scope["extensions"].get("tls", {}).get("client_cert_chain") or ()
            if chain:
                return {"certificate": ssl.PEM_cert_to_DER_cert(chain[0])}
        return {}

    def _as_told(self, scope: Scope, client: tuple[str, int]) -> dict[str, Any]:
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        address = self._first_stranger(b",".join(forwarded).decode("latin-1"), client[0])
        found: dict[str, Any] = {"client": (address, client[1])}
        told = [value for name, value in scope["headers"] if name == self._header]
        if len(told) == 1 and told[0]:
            certificate = certificate_of(told[0].decode("latin-1"))
            if certificate is not None:
                found["certificate"] = certificate
        return found

    def _first_stranger(self, forwarded: str, address: str) -> str:
        """Return the last address that no trusted proxy stands behind."""
        for entry in reversed(forwarded.split(",")[-ADDRESSES_MAX:]):
            try:
                address = str(ipaddress.ip_address(entry.strip()))
            except ValueError:
                break
            if not self._is_trusted(address):
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


@lru_cache(maxsize=CERTIFICATES_REMEMBERED_MAX)
def certificate_of(value: str) -> bytes | None:
    """Return the certificate (DER) in a proxy's header; None when it cannot be read.

    Forms: `:base64:` (RFC 9440), base64 of DER, or PEM with URL escapes (nginx).
    """
    if len(value) > HEADER_CHARACTERS_MAX:
        return None
    try:
        text = unquote(value) if "%" in value else value
        if text.startswith(_PEM_BEGIN):
            der = ssl.PEM_cert_to_DER_cert(text.strip())
        else:
            der = base64.b64decode(text.strip(":"), validate=True)
        x509.load_der_x509_certificate(der)
    except (ValueError, binascii.Error):
        log.warning("certificate.unreadable")
        return None
    return der
