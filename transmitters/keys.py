"""Signing keys of the transmitter: parsed once, used in threads or on the spot.

Signing RS256 takes about a quarter of a millisecond of a core and releases the interpreter while
it runs, so a thread keeps the event loop of a process free that answers requests. The way to a
thread and back, and two threads that want the interpreter, cost half as much again. A process whose
event loop answers nobody signs on the spot, therefore; more cores are put to use by more such
processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from runtime.keyring import Keyring
from ssf.encryption import encrypt
from ssf.errors import SharedSignalsError
from ssf.jose import SECEVENT_TYP, SigningKey, sign, signing_key
from ssf.jwks import render_jwks
from transmitters.model import Addressing, PendingSET, render_pending

PURPOSE: Final = "set"
SIGNING_THREADS: Final = 1
#: callers that sign at the same time go to the thread together until there are so many SETs
SIGNING_CHUNK: Final = 32
PARSED_KEYS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSET:
    """A compact JWS, or a JWE with one inside, and the kid of the key it is signed with."""

    raw: bytes
    kid: str


class SigningKeys:
    """Renders and signs SETs with the keys of their tenants."""

    def __init__(
        self,
        keyring: Keyring,
        *,
        on_the_spot: bool = False,
    ) -> None:
        """on_the_spot: signs on the event loop, but still encrypts in threads."""
        self._keyring = keyring
        self._on_the_spot = on_the_spot
        self._threads = ThreadPoolExecutor(SIGNING_THREADS, thread_name_prefix="sign")
        self._parsed: dict[tuple[str, str], SigningKey] = {}
        self._parsing: dict[tuple[str, str], asyncio.Task[SigningKey]] = {}
        self._waiting: list[_Asked] = []

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
        the current one; then it is encrypted, if the stream has a key for that. Raises NotFound
        when the tenant has no key. Requirements SET-21, SET-30, SET-32, SET-34, SET-36.
        """
        keys = {kid: await self._key(tenant_id, kid) for kid in {one.kid for one in pending}}
        jobs = [_Job(one, keys[one.kid], addressing) for one in pending]
        if self._on_the_spot and addressing.encryption_key is None:
            return _render_and_sign(jobs)
        return await self._enqueue(jobs)

    def _enqueue(self, jobs: _Jobs) -> asyncio.Future[_Answers]:
        """Queue jobs for the threads; what is asked for in one turn of the loop goes together."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._hand_over, loop)
        answer: asyncio.Future[_Answers] = loop.create_future()
        self._waiting.append((jobs, answer))
        return answer

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        for together in _grouped(waiting):
            signing = loop.run_in_executor(
                self._threads, _sign_each, [jobs for jobs, _ in together]
            )
            signing.add_done_callback(partial(_answer, [answer for _, answer in together]))

    def close(self) -> None:
        """Let the threads end; SETs being signed are finished first."""
        self._threads.shutdown(wait=True)

    async def _current(self, tenant_id: str) -> SigningKey:
        kid = await self._keyring.current_kid(tenant_id, PURPOSE)
        return self._parsed.get((tenant_id, kid)) or await self._parse(
            tenant_id, await self._keyring.current(tenant_id, PURPOSE)
        )

    async def _key(self, tenant_id: str, kid: str | None) -> SigningKey:
        if kid is None or not await self._keyring.is_published(tenant_id, kid):
            return await self._current(tenant_id)
        key = self._parsed.get((tenant_id, kid))
        if key is not None:
            return key
        jwk = await self._keyring.by_kid(tenant_id, kid)
        return await self._current(tenant_id) if jwk is None else await self._parse(tenant_id, jwk)

    async def _parse(self, tenant_id: str, jwk: dict[str, object]) -> SigningKey:
        """Parse a key once for all who wait for it: an RSA key takes 30 ms of a core."""
        name = (tenant_id, str(jwk["kid"]))
        key = self._parsed.get(name)
        if key is not None:
            return key
        parsing = self._parsing.get(name)
        if parsing is None:
            parsing = asyncio.create_task(asyncio.to_thread(signing_key, jwk))
            self._parsing[name] = parsing
            parsing.add_done_callback(partial(self._parsed_one, name))
        # Whoever gives up waiting must not take the key from the others.
        return await asyncio.shield(parsing)

    def _parsed_one(self, name: tuple[str, str], parsing: asyncio.Task[SigningKey]) -> None:
        del self._parsing[name]
        if parsing.cancelled() or parsing.exception() is not None:
            return
        if len(self._parsed) >= PARSED_KEYS_MAX:
            self._parsed.pop(next(iter(self._parsed)))
        self._parsed[name] = parsing.result()


@dataclass(frozen=True, slots=True)
class _Job:
    pending: PendingSET
    key: SigningKey
    addressing: Addressing


_Jobs: TypeAlias = Sequence[_Job]
_Answers: TypeAlias = list[SignedSET | SharedSignalsError]
#: what one caller wants signed, and where it waits for that
_Asked: TypeAlias = tuple[_Jobs, asyncio.Future[_Answers]]


def _grouped(waiting: Iterable[_Asked]) -> Iterator[list[_Asked]]:
    """Put callers together until they want SIGNING_CHUNK SETs: one way to the thread for all."""
    group: list[_Asked] = []
    for asked in waiting:
        group.append(asked)
        if sum(len(jobs) for jobs, _ in group) >= SIGNING_CHUNK:
            yield group
            group = []
    if group:
        yield group


def _sign_each(callers: Sequence[_Jobs]) -> list[_Answers]:
    return [_render_and_sign(jobs) for jobs in callers]


def _render_and_sign(jobs: _Jobs) -> _Answers:
    return [_one(job) for job in jobs]


def _one(job: _Job) -> SignedSET | SharedSignalsError:
    try:
        claims = render_pending(job.pending, job.addressing)
    except SharedSignalsError as error:
        return error
    raw = sign(claims, job.key, typ=SECEVENT_TYP)
    if job.addressing.encryption_key is not None:
        raw = encrypt(raw, job.addressing.encryption_key)
    return SignedSET(raw=raw, kid=job.key.kid)


def _answer(
    answers: Sequence[asyncio.Future[_Answers]], signing: asyncio.Future[list[_Answers]]
) -> None:
    """Give each caller its own SETs; trouble of the thread is everybody's."""
    error = asyncio.CancelledError() if signing.cancelled() else signing.exception()
    for place, answer in enumerate(answers):
        if answer.done():
            continue
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(signing.result()[place])
