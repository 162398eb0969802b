"""Receivers: we receive Security Event Tokens from providers.

Owns the registry of providers (who may send, with which keys, about whom) and the inbox of
signals. Comes in: one SET per HTTP POST (RFC 8935). Goes out: 202 after the commit, or an error of
RFC 8935; behind it a row of `signals` in state `received`, which the pipeline reads in batches::

    POST {base}/receivers/{provider}/events
      routes.receive_push        caller, content type, size; 202 or an RFC 8935 error
      service.accept             the only caller of the steps below, stops at the first failure
        ssf.jose.split_jws         three parts, strict JSON
        ssf.jose.check_header      typ, alg allowed, no crit
        service.check_issuer       is it the issuer of this endpoint? (not verified yet)
        keys.key_for               memory; at most one fetch at a time for an unknown kid
        ssf.jose.verify            signature
        ssf.secevent.parse_set     iat, aud, jti, one event, sub_id, payload
        model.check_subject        may this provider speak about this subject?
        store.ACCEPT               inserted or duplicate, committed: both answer 202
    --- later, in the core process ---
      store.pending_signals      what nobody has assessed yet
      store.mark_signals         assessed, unmatched, ignored or failed
      inbox.store.requeue_unmatched  an unknown subject has appeared: assess its signals again

Owns the tables `signals` and `unmatched_aliases`; `receivers.refusals` those of what was refused,
`receivers.registry` owns `providers`,
`receivers.upstreams` those that we poll and whose streams we manage.
"""

from typing import Any, Final

from receivers.refusals.store import NOTE_REFUSALS
from receivers.store import ACCEPT
from receivers.upstreams.operations import OPERATIONS as UPSTREAM_OPERATIONS
from runtime.writer import Operation

__all__ = ["OPERATIONS"]

#: hot writes of this package, for the writer of the core process
OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (ACCEPT, NOTE_REFUSALS, *UPSTREAM_OPERATIONS)
