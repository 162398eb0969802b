"""Use cases of the subjects of a stream: its receiver adds and removes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from runtime.caller import Caller
from runtime.errors import Conflict, TooManyRequests
from ssf.errors import StreamError
from ssf.stream_requests import SubjectRequest
from ssf.subject import SimpleSubject, Subject, opaque
from transmitters import store as streams_store
from transmitters.deps import TransmitterDeps
from transmitters.model import Stream
from transmitters.ownership import audited, own_stream
from transmitters.subjects import store
from transmitters.subjects.model import (
    NONE,
    SUBJECTS_PER_STREAM_MAX,
    SubjectRule,
    subject_key,
)


def check_rate(caller: Caller, deps: TransmitterDeps) -> None:
    """Count a change of subjects, which is also a way to probe for people, before it is read.

    Raises TooManyRequests. Source: SSF 1.0 §9.1; requirement SSF-SEC-1.
    """
    name = f"{caller.tenant_id} {caller.client_id}"
    wait_s = deps.subject_rates.take(name, deps.clock.now().timestamp())
    if wait_s:
        raise TooManyRequests("Subjects are changed too often.", retry_after_s=wait_s)


async def add_subject(request: SubjectRequest, *, caller: Caller, deps: TransmitterDeps) -> None:
    """Add a subject to a stream. Whether the hub knows the subject shows nowhere.

    Raises NotFound for the stream, Conflict for one that has SUBJECTS_PER_STREAM_MAX.
    Source: SSF 1.0 §8.1.3.2; requirements SSF-SUBJ-1, SSF-SUBJ-2, SSF-SUBJ-5, SSF-SUBJ-7.
    """
    await _change_subject(request, "stream.subject_add", caller=caller, deps=deps)


async def remove_subject(request: SubjectRequest, *, caller: Caller, deps: TransmitterDeps) -> None:
    """Remove a subject from a stream; its events go on for a time of grace.

    The grace is for receivers whose token fell into wrong hands: removing the victim is no way to
    hide an attack. Raises NotFound for the stream, StreamError for the stream's own subject.
    Source: SSF 1.0 §8.1.3.3, §9.3; requirements SSF-SUBJ-3, SSF-SUBJ-5, SSF-SUBJ-7 to SSF-SUBJ-9.
    """
    if _is_stream_itself(request.subject, request.stream_id):
        async with deps.db.snapshot() as connection:
            await own_stream(connection, caller, request.stream_id)
        raise StreamError(
            "invalid_request",
            "the stream's own subject cannot be removed",
            requirement="SSF-SUBJ-8",
        )
    await _change_subject(request, "stream.subject_remove", caller=caller, deps=deps)


async def _change_subject(
    request: SubjectRequest, action: str, *, caller: Caller, deps: TransmitterDeps
) -> None:
    key = subject_key(request.subject)
    # The digest tells apart and tells nobody whom: the audit keeps no subjects.
    detail = {"subject_sha256": key}
    adds = action == "stream.subject_add"
    async with audited(caller, deps, action, request.stream_id, detail) as connection:
        stream = await own_stream(
            connection, caller, request.stream_id, changes_at=deps.clock.now()
        )
        where = {"stream_id": stream.stream_id, "key": key}
        before = await store.get_rule(connection, stream.tenant_id, **where)
        after = _rule_after(stream, request, before, adds=adds, deps=deps)
        if after is None:
            await store.delete_rule(connection, stream.tenant_id, **where)
        else:
            if before is None and stream.subject_count >= SUBJECTS_PER_STREAM_MAX:
                raise Conflict(f"A stream has at most {SUBJECTS_PER_STREAM_MAX} subjects.")
            await store.put_rule(connection, after)
        grown = (after is not None) - (before is not None)
        counted = replace(stream, subject_count=stream.subject_count + grown)
        await streams_store.change_stream(connection, counted, now=deps.clock.now())


def _rule_after(
    stream: Stream,
    request: SubjectRequest,
    before: SubjectRule | None,
    *,
    adds: bool,
    deps: TransmitterDeps,
) -> SubjectRule | None:
    """Return the rule that remains: under NONE who is in, under ALL who is out (SSF-SUBJ-7)."""
    now = deps.clock.now()
    ends = now + timedelta(seconds=deps.removal_grace_s)
    rule = SubjectRule(
        tenant_id=stream.tenant_id,
        stream_id=stream.stream_id,
        is_excluded=not adds,
        subject=request.subject,
        is_verified=request.verified,
        since=now,
    )
    if stream.default_subjects == NONE:
        if adds:
            return rule
        # Removing again does not make the grace longer; what was never added is not there.
        return None if before is None else replace(before, until=before.until or ends)
    if adds:
        return None
    return before or replace(rule, since=ends)


def _is_stream_itself(subject: Subject, stream_id: str) -> bool:
    return isinstance(subject, SimpleSubject) and subject == opaque(stream_id)
