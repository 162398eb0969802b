"""Which TLS versions a server accepts: raw handshakes, with whatever certificate it has."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from enum import StrEnum
from typing import Final

HANDSHAKE_S: Final = 10.0
#: what OpenSSL says when our own side cannot offer a version
_OURS: Final = ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "INTERNAL_ERROR")
_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


class Probe(StrEnum):
    """What a handshake came to. UNABLE: it could not be tried from here."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNABLE = "unable"


async def probe(host: str, port: int, version: str) -> Probe:
    """Offer one version only; `any` offers 1.2 and 1.3 and is accepted when 1.3 is chosen.

    Raises OSError when nothing listens, TimeoutError when nothing answers.
    """
    async with asyncio.timeout(HANDSHAKE_S):
        try:
            agreed = await _handshake(host, port, _context(version))
        except ssl.SSLError as problem:
            ours = any(name in str(problem) for name in _OURS)
            return Probe.UNABLE if ours else Probe.REFUSED
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return Probe.REFUSED
    wanted = "TLSv1.3" if version == "any" else agreed
    return Probe.ACCEPTED if agreed == wanted else Probe.REFUSED


def _context(version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version == "any":
        return context
    with warnings.catch_warnings():
        # That they are deprecated is what the server has to agree with.
        warnings.simplefilter("ignore", DeprecationWarning)
        if version in {"1.0", "1.1"}:
            context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = _VERSIONS[version]
        context.minimum_version = _VERSIONS[version]
    return context


async def _handshake(host: str, port: int, context: ssl.SSLContext) -> str | None:
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    agreed = tls.version()
    writer.close()
    return agreed
