"""Key-bound sessions: challenges of the hub's making, and proofs of the key that answer them.

The device signs `{"jti": challenge}` as a JWT of type `dbsc+jwt`, as browsers do for
device-bound session credentials. A challenge is sealed: only the hub makes one, for one session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from hub.inline.model import SessionQuestion
from hub.node import Node
from risk.inline.live import Live
from risk.inline.proofs import Proof
from risk.inline.service import PROVE
from risk.model import Level
from risk.sessions.model import Session
from runtime.clock import epoch_s
from runtime.ids import new_token
from runtime.secrets import SecretBox
from ssf.errors import SharedSignalsError
from ssf.jose import check_header, split_jws, verification_key, verify

PROOF_TYP: Final = "dbsc+jwt"
PROOF_BYTES_MAX: Final = 8_192
CHALLENGE_LIFE: Final = timedelta(minutes=10)
_PURPOSE: Final = "dbsc"


def new_challenge(session: Session, box: SecretBox, now: datetime) -> str:
    """Return a challenge for a session, different every time. Raises nothing."""
    return box.seal("|".join((_PURPOSE, session.session_id, str(epoch_s(now)), new_token(""))))


def read_proof(
    proof: str, jwk: Mapping[str, str], session_id: str, box: SecretBox, *, now: datetime
) -> str | None:
    """Return by what a proof is known, for refusing it a second time; None: it proves nothing.

    It must be signed with the session's key and answer a fresh challenge of this session. Raises
    nothing. Source: DBSC, section on proofs; RFC 7515 §5.2.
    """
    if len(proof) > PROOF_BYTES_MAX:
        return None
    try:
        jws = split_jws(proof.encode())
        check_header(jws.header, typ=PROOF_TYP)
        verify(jws, verification_key(jwk))
        claims = msgspec.json.decode(jws.payload)
    except (SharedSignalsError, ValueError):
        return None
    challenge = claims.get("jti")
    if not isinstance(challenge, str) or not _is_ours(challenge, session_id, box, now):
        return None
    return hashlib.sha256(challenge.encode()).hexdigest()


async def binding_of(  # noqa: PLR0913 - one question of one session
    question: SessionQuestion,
    live: Live,
    key: str,
    now: datetime,
    node: Node,
    *,
    is_review: bool,
    wait: Callable[[], None],
) -> Level:
    """Return how bad it is what a key-bound session proves in a context: LOW is well.

    key: of the context. is_review: nobody asks, so that nobody could show a proof. wait: is called
    before a proof is written. Raises Unavailable and database errors.
    """
    jwk = live.session.binding
    if jwk is None:
        return Level.LOW
    if question.dbsc_proof is None:
        is_well = is_review or live.is_proven(key, now)
        return Level.LOW if is_well else Level.MEDIUM
    proof = read_proof(question.dbsc_proof, jwk, live.session.session_id, node.box, now=now)
    if proof is None:
        return Level.HIGH
    item = Proof(
        tenant_id=question.tenant_id,
        session_id=live.session.session_id,
        proof_id=proof,
        context_key=key,
        at=now,
    )
    wait()
    if not await node.writer.submit(PROVE, item):
        # Somebody showed this very proof before: one of the two has copied it.
        return Level.HIGH
    live.prove(key, now)
    return Level.LOW


def _is_ours(challenge: str, session_id: str, box: SecretBox, now: datetime) -> bool:
    try:
        purpose, whose, made_at, _ = box.open(challenge).split("|")
        age_s = epoch_s(now) - int(made_at)
    except ValueError:
        return False
    is_fresh = -CHALLENGE_LIFE.total_seconds() <= age_s <= CHALLENGE_LIFE.total_seconds()
    return purpose == _PURPOSE and whose == session_id and is_fresh
