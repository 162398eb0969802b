"""A certificate authority for development: one for a machine, never for production.

It signs one server certificate, and those of the clients that are named, and then forgets its key,
so that nobody can sign another one.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID: Final = timedelta(days=90)
#: clocks of the machines that connect may be a little behind
BACKDATED: Final = timedelta(hours=1)
AUTHORITY_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "cert.pem"
KEY_FILE: Final = "key.pem"
_CLIENT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")


def make_development_certificate(
    folder: Path, hosts: Sequence[str], *, now: datetime, clients: Sequence[str] = ()
) -> None:
    """Write ca.pem, cert.pem and key.pem for these host names and addresses.

    clients: names such as `payroll`; each gets `client-payroll.pem` and `client-payroll-key.pem`,
    for a certificate with the subject `CN=payroll`. Existing files are never overwritten. Raises
    FileExistsError, OSError, and ValueError for a name that cannot be used.
    """
    names = [_general_name(host) for host in hosts]
    for client in clients:
        if not _CLIENT_NAME.fullmatch(client):
            raise ValueError(f"{client!r} is no name for a client: letters, digits, dots, hyphens")
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        _builder("Signalhub development authority", authority_key.public_key(), now)
        .issuer_name(_name("Signalhub development authority"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_KEY_USAGE_OF_AUTHORITY, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    server = _leaf(hosts[0], key.public_key(), authority, ExtendedKeyUsageOID.SERVER_AUTH, now)
    server = server.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = server.sign(authority_key, hashes.SHA256())
    _write(folder / KEY_FILE, _secret(key), mode=0o600)
    _write(folder / CERTIFICATE_FILE, _pem(certificate) + _pem(authority), mode=0o644)
    for client in clients:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _leaf(client, key.public_key(), authority, ExtendedKeyUsageOID.CLIENT_AUTH, now)
        certificate = leaf.sign(authority_key, hashes.SHA256())
        _write(folder / f"client-{client}-key.pem", _secret(key), mode=0o600)
        _write(folder / f"client-{client}.pem", _pem(certificate) + _pem(authority), mode=0o644)
    _write(folder / AUTHORITY_FILE, _pem(authority), mode=0o644)


def _leaf(
    name: str,
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    usage: x509.ObjectIdentifier,
    now: datetime,
) -> x509.CertificateBuilder:
    return (
        _builder(name, key, now)
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


_KEY_USAGE_OF_AUTHORITY: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _builder(
    common_name: str, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    # "x" and the mode at creation: a key is never readable by others, not even for a moment.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
