"""The hub's own TLS: 1.2 and 1.3 only, and a renewed certificate taken up without a restart.

Source: RFC 9325 (recommendations for TLS), SSF 1.0 §10 (TLS for all endpoints).
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import msgspec
import structlog

#: how often files are looked at; a renewed certificate serves new connections after that
LOOK_AGAIN_S: Final = 10.0

log = structlog.get_logger()


class CertificateFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of the certificate chain and its private key, both PEM.

    client_authority: of the authorities whose certificates clients may prove themselves with.
    """

    certificate: str
    key: str
    client_authority: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return the TLS side of a server. Raises OSError when the files do not fit or are none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # RFC 9325 §4.2.1: with TLS 1.2 only suites with forward secrecy and authenticated ciphers.
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.certificate, self.key)
        if self.client_authority is not None:
            # Optional: who brings none may prove itself in another way. One that was signed by
            # somebody else, or has expired, ends the handshake.
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cafile=self.client_authority)
        return context

    def stamp(self) -> tuple[int, int]:
        """Return what changes when a file is written anew. Raises OSError."""
        return Path(self.certificate).stat().st_mtime_ns, Path(self.key).stat().st_mtime_ns


async def keep_fresh(
    context: ssl.SSLContext, files: CertificateFiles, *, look_again_s: float = LOOK_AGAIN_S
) -> None:
    """Load the files into a serving context whenever they change, until cancelled.

    Files that do not fit together, as in the middle of a renewal, are left alone until they do:
    the hub goes on with what it has and says so.
    """
    loaded = _stamp_of(files)
    refused = None
    while True:
        await asyncio.sleep(look_again_s)
        seen = _stamp_of(files)
        if seen in {loaded, refused}:
            continue
        try:
            files.context()
            context.load_cert_chain(files.certificate, files.key)
        except OSError as error:
            refused = seen
            log.warning("certificate.refused", file=files.certificate, reason=str(error))
        else:
            loaded = seen
            log.info("certificate.renewed", file=files.certificate)


def _stamp_of(files: CertificateFiles) -> tuple[int, int] | None:
    try:
        return files.stamp()
    except OSError:
        return None
