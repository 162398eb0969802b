"""How a client proves itself without a secret in the request, and how often it may try.

What needs the network or the database happens here, before Authlib decides on the request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_plus

import structlog

from hub.oauth import assertions, store
from hub.oauth.assertions import Assertion, AssertionClaims, NotProvenError
from hub.oauth.certificates import METHOD, names_of, thumbprint_of
from hub.oauth.server import Proof, Refusal, TokenRequest, invalid_client
from hub.store import Client
from receivers.keys import IssuerKeys
from runtime.clock import Clock, from_epoch_s
from runtime.database import Database
from runtime.rate import TokenBuckets
from ssf.errors import SETError

#: failed attempts per address and claimed client: so many at once, then one in five seconds
FAILURES_AT_ONCE: Final = 20.0
FAILURES_PER_S: Final = 0.2
#: tokens per client: each costs a signature
TOKENS_AT_ONCE: Final = 60.0
TOKENS_PER_S: Final = 2.0
TOO_MANY: Final = 429
CLIENT_ID_CHARACTERS_MAX: Final = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request of somebody who says to be a client. place: where it came from."""

    tenant_id: str
    place: str
    claimed: str

    @property
    def name(self) -> str:
        """Under which failures are counted; of one place, so that nobody locks out another."""
        return f"{self.tenant_id} {self.place} {self.claimed}"


class Prover:
    """Proves clients by assertion, and limits how often anybody may try."""

    def __init__(self, *, db: Database, clock: Clock, keys: IssuerKeys) -> None:
        """keys: fetches the keys of clients that publish them."""
        self._db = db
        self._clock = clock
        self._keys = keys
        self._failures = TokenBuckets(per_s=FAILURES_PER_S, burst=FAILURES_AT_ONCE)
        self._tokens = TokenBuckets(per_s=TOKENS_PER_S, burst=TOKENS_AT_ONCE)

    def begin(self, tenant_id: str, asked: TokenRequest, *, place: str) -> Attempt:
        """Note an attempt before anything is checked. Raises Refusal 429."""
        attempt = Attempt(tenant_id=tenant_id, place=place, claimed=claimed_client(asked))
        _refuse_if_too_many(self._failures.wait_s(attempt.name, self._now_s()))
        return attempt

    def failed(self, attempt: Attempt) -> None:
        """Count an attempt that failed."""
        self._failures.take(attempt.name, self._now_s())

    def count_token(self, client: Client) -> None:
        """Count a token that a client is about to get. Raises Refusal 429."""
        name = f"{client.tenant_id} {client.client_id}"
        _refuse_if_too_many(self._tokens.take(name, self._now_s()))

    async def prove(
        self,
        asked: TokenRequest,
        clients: Mapping[str, Client],
        *,
        issuer: str,
        certificate: bytes | None,
    ) -> TokenRequest:
        """Return the request with the proof that came in it, if one did and holds.

        clients: by id. certificate: in DER, of the connection. Raises Refusal, and
        Unavailable when the client's keys cannot be fetched.
        Source: RFC 7521 §4.2, RFC 7523 §2.2; requirement OA-2.
        """
        if "client_assertion" not in asked.form and "client_assertion_type" not in asked.form:
            return replace(asked, proof=_by_certificate(asked, clients, certificate))
        try:
            client_id = await self._by_assertion(asked.form, clients, issuer)
        except NotProvenError as error:
            log.info("client.refused", method=assertions.METHOD, reason=str(error))
            raise invalid_client() from error
        return replace(asked, proof=Proof(method=assertions.METHOD, client_id=client_id))

    async def _by_assertion(
        self, form: Mapping[str, str], clients: Mapping[str, Client], issuer: str
    ) -> str:
        if form.get("client_assertion_type") != assertions.ASSERTION_TYPE:
            raise NotProvenError("not an assertion type we know")
        assertion = assertions.read_assertion(form.get("client_assertion", ""))
        client = clients.get(assertion.client_id)
        if client is None or form.get("client_id", client.client_id) != client.client_id:
            raise NotProvenError("no such client, or another one is named")
        claims = await self._verified(assertion, client, issuer)
        async with self._db.transaction() as connection:
            is_new = await store.use_assertion(
                connection,
                client.tenant_id,
                client_id=client.client_id,
                jti_hash=assertions.jti_hash(claims),
                expires_at=from_epoch_s(math.ceil(claims.exp)),
            )
        if not is_new:
            raise NotProvenError("the assertion was used before")
        return client.client_id

    async def _verified(self, assertion: Assertion, client: Client, issuer: str) -> AssertionClaims:
        now = self._clock.now()
        try:
            key = await self._keys.key_for(assertions.keys_of(client), assertion.header, now=now)
        except SETError as error:
            raise NotProvenError(error.description) from error
        return await asyncio.to_thread(
            assertions.check_assertion,
            assertion,
            key,
            audiences=(issuer, f"{issuer}/oauth/token"),
            now_s=now.timestamp(),
        )

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


def _by_certificate(
    asked: TokenRequest, clients: Mapping[str, Client], certificate: bytes | None
) -> Proof | None:
    """Return the proof by the certificate of the connection, if the client is one for that.

    Source: RFC 8705 §2.1: the client names itself in `client_id`, the certificate is checked by
    whoever ended TLS, and its name has to be the registered one.
    """
    client = clients.get(asked.form.get("client_id", ""))
    if client is None or client.auth_method != METHOD or certificate is None:
        return None
    if client.tls_subject is None or client.tls_subject not in names_of(certificate):
        log.info("client.refused", method=METHOD, reason="the certificate names somebody else")
        return None
    return Proof(method=METHOD, client_id=client.client_id, thumbprint=thumbprint_of(certificate))


def claimed_client(asked: TokenRequest) -> str:
    """Return which client a request says to come from; "" when it does not say. Raises nothing."""
    claimed = asked.form.get("client_id", "")
    if asked.basic is not None:
        claimed = unquote_plus(asked.basic.partition(":")[0])
    elif "client_assertion" in asked.form:
        try:
            claimed = assertions.read_assertion(asked.form["client_assertion"]).client_id
        except NotProvenError:
            claimed = ""
    return claimed[:CLIENT_ID_CHARACTERS_MAX]


def _refuse_if_too_many(wait_s: float) -> None:
    if wait_s > 0:
        text = "Too many requests; see Retry-After."
        body = {"error": "slow_down", "error_description": text}
        raise Refusal(TOO_MANY, body, {"retry-after": str(math.ceil(wait_s))})
