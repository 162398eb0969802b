"""An application as SSF receiver: what push and poll have in common.

A SET is verified in full, remembered by its jti, and obeyed if it is a session-revoked.
Source: SSF 1.0, RFC 8417; requirements SET-50 to SET-63, SUB-34.
"""

from collections import OrderedDict

from conformance.peers.clock import now_s
from conformance.peers.errors import UnknownUserError, UnsupportedSubjectError
from conformance.peers.hub_client import ConnectedStream
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import AppOptions
from conformance.peers.people import Directory, Selection
from conformance.peers.sessions import SessionBook
from conformance.peers.trust import IssuerKeys
from ssf.errors import SETError
from ssf.events.caep import SessionRevoked
from ssf.jose import check_header, split_jws, verify
from ssf.secevent import Expectation, SecurityEventToken, parse_set, peek_issuer
from ssf.subject import render_subject

SETS_REMEMBERED_MAX = 200_000


class SETConsumer:
    """Takes the SETs of one stream, each once."""

    def __init__(
        self, *, keys: IssuerKeys, people: Directory, book: SessionBook, ledger: Ledger
    ) -> None:
        self._keys = keys
        self._people = people
        self._book = book
        self._ledger = ledger
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def consume(
        self, raw: bytes, connected: ConnectedStream, options: AppOptions, *, by: str
    ) -> SecurityEventToken:
        """Verify a SET and act on it; a repeat is accepted and changes nothing (SET-61).

        by: push or poll, for the ledger. Raises SETError, or KeysUnavailableError when undecided.
        """
        try:
            token = await self._verified(raw, connected)
        except SETError as problem:
            self._ledger.record(
                "set.refused",
                Outcome.REFUSED,
                by=by,
                err=problem.code,
                detail=problem.description,
                requirement=problem.requirement,
            )
            raise
        self._obey(token, options, by=by)
        return token

    async def _verified(self, raw: bytes, connected: ConnectedStream) -> SecurityEventToken:
        jws = split_jws(raw)
        check_header(jws.header)
        stream = connected.stream
        if peek_issuer(jws) != stream.iss:
            raise SETError("invalid_issuer", "iss is not the stream's", requirement="SET-53")
        key = await self._keys.key_for(connected.jwks_url, jws)
        if key is None:
            raise SETError("invalid_key", "no such key is published", requirement="SET-54")
        verify(jws, key)
        expected = Expectation(issuer=stream.iss, audiences=stream.audiences)
        return parse_set(jws.payload, expected, int(now_s()))

    def _obey(self, token: SecurityEventToken, options: AppOptions, *, by: str) -> None:
        known = (token.iss, token.jti) in self._seen
        self._seen[token.iss, token.jti] = None
        if len(self._seen) > SETS_REMEMBERED_MAX:
            self._seen.popitem(last=False)
        revokes = isinstance(token.event, SessionRevoked)
        ended = self._revoke(token, options, by=by) if revokes and not known else 0
        outcome = Outcome.REPEAT if known or (revokes and not ended) else Outcome.NOTED
        self._ledger.record(
            "set.received",
            Outcome.EFFECT if ended else outcome,
            request_id=token.jti,
            by=by,
            event_type=token.event_type,
            subject=render_subject(token.sub_id),
            txn=token.txn,
            ended=ended,
            known=known,
        )

    def _revoke(self, token: SecurityEventToken, options: AppOptions, *, by: str) -> int:
        """End the selected sessions; a subject that means nobody here is of no interest."""
        try:
            selection = self._people.select(
                token.sub_id, formats=options.formats, issuer=options.subject_issuer
            )
        except (UnknownUserError, UnsupportedSubjectError):
            return 0
        if selection == Selection():
            return 0  # Neither user nor device nor session: that would be everybody.
        until_s = token.occurred_at_s if options.keep_newer else float("inf")
        return self._book.end(selection, by=by, request_id=token.jti, started_until_s=until_s)
