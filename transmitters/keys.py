"""Signing keys of the transmitter: parsed once, used in threads, never on the event loop.

Signing RS256 takes about a quarter of a millisecond of a core and releases the interpreter while
it runs, so a few threads keep the event loop free. SETs of one poll are signed in chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from runtime.database import chunks
from runtime.keyring import Keyring
from ssf.errors import SharedSignalsError
from ssf.jose import SECEVENT_TYP, SigningKey, sign, signing_key
from ssf.jwks import render_jwks
from transmitters.model import Addressing, PendingSET, render_pending

PURPOSE: Final = "set"
SIGNING_THREADS: Final = 2
SIGNING_CHUNK: Final = 8
PARSED_KEYS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSET:
    """A compact JWS, and the kid of the key it is signed with."""

    raw: bytes
    kid: str


class SigningKeys:
    """Renders and signs SETs with the keys of their tenants."""

    def __init__(self, keyring: Keyring, *, threads: int = SIGNING_THREADS) -> None:
        self._keyring = keyring
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sign")
        self._parsed: dict[tuple[str, str], SigningKey] = {}

    async def current_kid(self, tenant_id: str) -> str:
        """Return the kid of the key that signs new SETs. Raises NotFound without a key."""
        return (await self._current(tenant_id)).kid

    async def published(self, tenant_id: str) -> dict[str, object]:
        """Return the JWK Set of the tenant. Requirements SET-35, SSF-META-3."""
        return render_jwks(await self._keyring.published(tenant_id))

    async def sign(
        self, tenant_id: str, pending: Sequence[PendingSET], addressing: Addressing
    ) -> list[SignedSET | SharedSignalsError]:
        """Render and sign SETs; each gives one, or why it cannot be rendered.

        A SET that was signed before is signed with the same key while that is published, else with
        the current one. Raises NotFound when the tenant has no key.
        Requirements SET-30, SET-32, SET-34, SET-36.
        """
        jobs = [(one, await self._key(tenant_id, one.kid)) for one in pending]
        loop = asyncio.get_running_loop()
        signed = await asyncio.gather(
            *(
                loop.run_in_executor(self._threads, _render_and_sign, some, addressing)
                for some in chunks(jobs, SIGNING_CHUNK)
            )
        )
        return [result for some in signed for result in some]

    def close(self) -> None:
        """Let the threads end; SETs being signed are finished first."""
        self._threads.shutdown(wait=True)

    async def _current(self, tenant_id: str) -> SigningKey:
        return await self._parse(tenant_id, await self._keyring.current(tenant_id, PURPOSE))

    async def _key(self, tenant_id: str, kid: str | None) -> SigningKey:
        jwk = None if kid is None else await self._keyring.by_kid(tenant_id, kid)
        if jwk is None:
            return await self._current(tenant_id)
        return await self._parse(tenant_id, jwk)

    async def _parse(self, tenant_id: str, jwk: dict[str, object]) -> SigningKey:
        name = (tenant_id, str(jwk["kid"]))
        key = self._parsed.get(name)
        if key is None:
            key = await asyncio.to_thread(signing_key, jwk)
            if len(self._parsed) >= PARSED_KEYS_MAX:
                self._parsed.pop(next(iter(self._parsed)))
            self._parsed[name] = key
        return key


def _render_and_sign(
    jobs: Sequence[tuple[PendingSET, SigningKey]], addressing: Addressing
) -> list[SignedSET | SharedSignalsError]:
    return [_one(pending, key, addressing) for pending, key in jobs]


def _one(
    pending: PendingSET, key: SigningKey, addressing: Addressing
) -> SignedSET | SharedSignalsError:
    try:
        claims = render_pending(pending, addressing)
    except SharedSignalsError as error:
        return error
    return SignedSET(raw=sign(claims, key, typ=SECEVENT_TYP), kid=key.kid)
