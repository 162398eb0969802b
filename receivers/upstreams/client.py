"""The stream client: one exchange of SSF stream management with an upstream per order.

Each returns what to write and what to tell the admin. What must not happen twice is preceded by a
durable mark (`begin`), and a creation whose outcome is unknown by a look at what is there (CRC-5).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from receivers.model import ProviderProfile
from receivers.upstreams.model import (
    Action,
    Change,
    Delivery,
    Upstream,
)
from receivers.upstreams.tokens import Tokens
from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.outbound import Outbound, OutboundAnswer, OutboundRequest
from ssf.errors import RemoteProtocolError
from ssf.metadata import METADATA_BYTES_MAX, metadata_url, parse_metadata
from ssf.stream import DeliveryMethod
from ssf.stream_answers import (
    ANSWER_BYTES_MAX,
    RemoteStream,
    StreamWish,
    of_stream,
    parse_configuration,
    parse_configurations,
    parse_status,
    render_wish,
)

TIMEOUT_S: Final = 20.0
STATE_BYTES: Final = 16
RETRY_S: Final = 5.0
OK, CREATED, ACCEPTED, NO_CONTENT = 200, 201, 202, 204
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, CONFLICT, TOO_MANY = 401, 403, 404, 405, 409, 429
SUCCESS: Final = range(200, 300)
SERVER_ERROR: Final = 500


class ActionFailedError(Exception):
    """The order cannot be carried out as it is; the text says why, for the admin."""

    def __init__(self, detail: str, change: Change | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        #: what was learned all the same
        self.change = change or Change()


class LeaseLostError(Exception):
    """Another process deals with the upstream by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One thing to do. is_repeat: an earlier try may have reached the upstream.

    begin: makes durable that the request is about to be sent, with the `state` of a verification;
    raises LeaseLostError. events_url: where the upstream is to push to.
    """

    action: Action
    arguments: dict[str, Any]
    upstream: Upstream
    provider: ProviderProfile
    events_url: str
    is_repeat: bool
    begin: Callable[[str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an errand: columns to write, and what to tell the admin."""

    change: Change
    detail: str


class StreamClient:
    """Carries errands out; holds nothing between them."""

    def __init__(self, outbound: Outbound, *, tokens: Tokens, clock: Clock) -> None:
        self._outbound = outbound
        self._tokens = tokens
        self._clock = clock

    async def run(self, errand: Errand) -> Outcome:
        """Carry an errand out.

        Raises ActionFailedError when it cannot be done, Unavailable when it is worth another try,
        LeaseLostError. Requirements CR-15, SSF-OP-50, SSF-META-23.
        """
        by_action: dict[Action, Callable[[Errand], Awaitable[Outcome]]] = {
            Action.DISCOVER: self._discover,
            Action.CREATE: self._create,
            Action.READ: self._read,
            Action.UPDATE: self._change,
            Action.REPLACE: self._change,
            Action.READ_STATUS: self._read_status,
            Action.SET_STATUS: self._set_status,
            Action.VERIFY: self._verify,
            Action.DELETE: self._delete,
        }
        try:
            if errand.upstream.metadata is None and errand.action is not Action.DISCOVER:
                found = await self._discover(errand)
                metadata: Any = found.change.metadata
                errand = replace(errand, upstream=replace(errand.upstream, metadata=metadata))
                outcome = await by_action[errand.action](errand)
                merged = found.change.columns() | outcome.change.columns()
                return Outcome(change=Change(**merged), detail=outcome.detail)
            return await by_action[errand.action](errand)
        except RemoteProtocolError as error:
            raise ActionFailedError(f"{error.description} ({error.requirement})") from error

    async def _discover(self, errand: Errand) -> Outcome:
        """Fetch the metadata, from where SSF 1.0 puts it or where the admin says it is."""
        provider = errand.provider
        url = errand.upstream.settings.metadata_url or metadata_url(provider.issuer)
        # Public by its nature (SSF-META-10): no credentials.
        answer = await self._outbound.send(
            OutboundRequest(
                method="GET",
                url=url,
                headers={"accept": "application/json"},
                timeout_s=TIMEOUT_S,
                body_bytes_max=METADATA_BYTES_MAX,
            )
        )
        _check(answer, "metadata", {OK})
        found = parse_metadata(answer.body, provider.issuer)
        members = {
            name: value
            for name, value in msgspec.to_builtins(found).items()
            if value not in (None, [], ())
        }
        detail = "metadata read"
        if provider.inline_keys is None and found.jwks_uri not in {None, provider.jwks_uri}:
            detail += f"; its jwks_uri is {found.jwks_uri}, the provider has {provider.jwks_uri}"
        return Outcome(change=Change(metadata=members), detail=detail)

    async def _create(self, errand: Errand) -> Outcome:
        """Create our stream, unless it is there already. Requirements CRC-4, CRC-5, SSF-OP-51."""
        listed = await self._list(errand)
        ours = next((stream for stream in listed or () if _is_ours(stream, errand)), None)
        if ours is not None:
            return self._known(errand, ours, "our stream was there already")
        if errand.is_repeat and listed is None:
            raise ActionFailedError(
                "an earlier try may have created the stream, and the upstream does not list "
                "streams: ask the vendor"
            )
        await errand.begin(None)
        answer = await self._call(
            errand, "POST", self._endpoint(errand, "configuration_endpoint"), _wish(errand)
        )
        if answer.status == CONFLICT:
            return await self._adopt(errand)
        _check(answer, "create", {OK, CREATED})
        return self._known(errand, self._configuration(errand, answer), "stream created")

    async def _adopt(self, errand: Errand) -> Outcome:
        """A stream exists: if it is ours, bring it to what we want (SSF-OP-51)."""
        listed = await self._list(errand)
        ours = next((stream for stream in listed or () if _is_ours(stream, errand)), None)
        if ours is None:
            raise ActionFailedError("409: a stream exists at the upstream that is not ours")
        answer = await self._call(
            errand,
            "PATCH",
            self._endpoint(errand, "configuration_endpoint"),
            _wish(errand, ours.stream_id),
        )
        if answer.status == OK:
            ours = self._configuration(errand, answer)
        return self._known(errand, ours, "our stream was there already")

    async def _list(self, errand: Errand) -> tuple[RemoteStream, ...] | None:
        """Return the streams we have there; None when the upstream does not tell."""
        answer = await self._call(errand, "GET", self._endpoint(errand, "configuration_endpoint"))
        if answer.status in {NO_CONTENT, NOT_FOUND, NOT_ALLOWED}:
            return None if answer.status == NOT_ALLOWED else ()
        _check(answer, "list", {OK})
        return parse_configurations(answer.body, errand.provider.issuer)

    async def _read(self, errand: Errand) -> Outcome:
        answer = await self._call(errand, "GET", self._of_stream(errand, "configuration_endpoint"))
        if answer.status == NO_CONTENT:
            return Outcome(change=Change(), detail="answered 204 without a configuration")
        _check(answer, "read", {OK})
        return self._known(errand, self._configuration(errand, answer), "configuration read")

    async def _change(self, errand: Errand) -> Outcome:
        """PATCH or PUT, with the three members that are ours (CRC-6)."""
        method = "PATCH" if errand.action is Action.UPDATE else "PUT"
        answer = await self._call(
            errand,
            method,
            self._endpoint(errand, "configuration_endpoint"),
            _wish(errand, errand.upstream.stream_id),
        )
        if answer.status in {ACCEPTED, NO_CONTENT}:
            detail = f"answered {answer.status}: read the stream later"
            return Outcome(change=Change(), detail=detail)
        _check(answer, method, {OK})
        return self._known(errand, self._configuration(errand, answer), f"{method} done")

    async def _read_status(self, errand: Errand) -> Outcome:
        answer = await self._call(errand, "GET", self._of_stream(errand, "status_endpoint"))
        return self._status(errand, answer, "status read")

    async def _set_status(self, errand: Errand) -> Outcome:
        body = {"stream_id": errand.upstream.stream_id, **errand.arguments}
        answer = await self._call(
            errand, "POST", self._endpoint(errand, "status_endpoint"), msgspec.json.encode(body)
        )
        return self._status(errand, answer, "status set")

    def _status(self, errand: Errand, answer: OutboundAnswer, done: str) -> Outcome:
        if answer.status in {ACCEPTED, NO_CONTENT}:
            return Outcome(change=Change(), detail=f"answered {answer.status}: read it later")
        _check(answer, "status", {OK})
        told = parse_status(answer.body)
        change = Change(stream_status=told.status.value, stream_reason=told.reason)
        if change.stream_status != errand.upstream.stream_status:
            # There may be something now; else a pause that the upstream asked for goes on.
            change = msgspec.structs.replace(change, poll_due_at=self._clock.now())
        return Outcome(change=change, detail=f"{done}: {told.status.value}")

    async def _verify(self, errand: Errand) -> Outcome:
        """Ask for a verification with a random state, known before it is sent (SSF-VER-11)."""
        state = secrets.token_urlsafe(STATE_BYTES)
        endpoint = self._endpoint(errand, "verification_endpoint")
        await errand.begin(state)
        body = {"stream_id": errand.upstream.stream_id, "state": state}
        answer = await self._call(errand, "POST", endpoint, msgspec.json.encode(body))
        # Some answer 202 (OLD-7); none of them says that the SET arrives (SSF-VER-9).
        _check(answer, "verify", SUCCESS)
        return Outcome(change=Change(), detail="verification asked for; it arrives like any SET")

    async def _delete(self, errand: Errand) -> Outcome:
        answer = await self._call(
            errand, "DELETE", self._of_stream(errand, "configuration_endpoint")
        )
        _check(answer, "delete", {OK, NO_CONTENT, NOT_FOUND})
        polled = errand.upstream.settings.delivery is Delivery.POLL
        change = Change(
            stream=None,
            stream_id=None,
            stream_status=None,
            stream_reason=None,
            acks=[],
            set_errs={},
            verify_due_at=None,
            status_due_at=None,
            awaiting_since=None,
            failing_since=None,
            last_error=None,
            is_silent=False,
        )
        if polled:
            change = msgspec.structs.replace(change, endpoint_url=None)
        return Outcome(change=change, detail="stream deleted")

    def _known(self, errand: Errand, told: RemoteStream, done: str) -> Outcome:
        """Return how to write down what we were told of our stream, if it is fit for use."""
        upstream, now = errand.upstream, self._clock.now()
        members = _members(told)
        change = Change(stream=members, stream_id=told.stream_id)
        if upstream.stream_id is None:
            fresh = replace(upstream, stream=members, stream_id=told.stream_id)
            change = msgspec.structs.replace(
                change,
                stream_status="enabled",
                poll_due_at=now,
                verify_due_at=fresh.next_verification(now),
            )
        if upstream.settings.delivery is Delivery.POLL and told.method is DeliveryMethod.POLL:
            # Keycloak names it once, when the stream is made, and leaves it out of what it answers
            # to PATCH. It cannot have become another one without being told.
            known = told.endpoint_url or upstream.settings.endpoint_url
            if known is None:
                raise ActionFailedError("the upstream names no endpoint_url to poll", change)
            change = msgspec.structs.replace(change, endpoint_url=known)
        stranger = foreign_audience(members, errand.provider)
        if stranger is not None:
            # Written down all the same, so that the stream can be deleted (SSF-CFG-3, CRC-8).
            raise ActionFailedError(stranger, change)
        if upstream.failing_since is not None:
            # It may be mended: there is no need to wait for the end of a pause.
            change = msgspec.structs.replace(change, poll_due_at=now)
        return Outcome(change=change, detail=done)

    def _configuration(self, errand: Errand, answer: OutboundAnswer) -> RemoteStream:
        return parse_configuration(answer.body, errand.provider.issuer)

    def _endpoint(self, errand: Errand, name: str) -> str:
        url = (errand.upstream.metadata or {}).get(name)
        if not isinstance(url, str):
            raise ActionFailedError(f"the upstream's metadata has no {name}")
        return url

    def _of_stream(self, errand: Errand, name: str) -> str:
        return of_stream(self._endpoint(errand, name), errand.upstream.stream_id or "")

    async def _call(
        self, errand: Errand, method: str, url: str, body: bytes = b""
    ) -> OutboundAnswer:
        headers = {"accept": "application/json"}
        if body:
            headers["content-type"] = "application/json"
        request = OutboundRequest(
            method=method,
            url=url,
            headers=headers,
            body=body,
            timeout_s=TIMEOUT_S,
            body_bytes_max=ANSWER_BYTES_MAX,
        )
        return await self._tokens.send(
            errand.upstream, errand.provider.issuer, request, via=self._outbound
        )


def foreign_audience(stream: dict[str, Any] | None, provider: ProviderProfile) -> str | None:
    """Return what is wrong with a stream whose SETs are not for us; None when all is well.

    stream: its configuration as the upstream told it last. All of its SETs would be refused: they
    are not to be asked for (SET-55, CRC-8).
    """
    audiences = (stream or {}).get("aud") or ()
    if not audiences or not provider.expectation.audiences.isdisjoint(audiences):
        return None
    return f"the stream's aud {', '.join(audiences)} is none of the provider's audiences"


def _wish(errand: Errand, stream_id: str | None = None) -> bytes:
    upstream, provider = errand.upstream, errand.provider
    pushed = upstream.settings.delivery is Delivery.PUSH
    header = provider.authorization if pushed else None
    return render_wish(
        StreamWish(
            events_requested=upstream.settings.events_requested,
            method=DeliveryMethod.PUSH if pushed else DeliveryMethod.POLL,
            endpoint_url=errand.events_url if pushed else None,
            authorization_header=None if header is None else header.decode(),
            description=upstream.description,
        ),
        stream_id=stream_id,
    )


def _is_ours(stream: RemoteStream, errand: Errand) -> bool:
    """Tell whether a stream is the one we would create: by its name or its address (SSF-OP-51)."""
    pushed_here = stream.endpoint_url == errand.events_url
    return pushed_here or stream.description == errand.upstream.description


def _members(told: RemoteStream) -> dict[str, Any]:
    members = {
        "stream_id": told.stream_id,
        "aud": list(told.aud),
        "method": None if told.method is None else told.method.value,
        "endpoint_url": told.endpoint_url,
        "events_supported": list(told.events_supported),
        "events_requested": list(told.events_requested),
        "events_delivered": list(told.events_delivered),
        "description": told.description,
        "min_verification_interval": told.min_verification_interval_s,
        "inactivity_timeout": told.inactivity_timeout_s,
    }
    return {name: value for name, value in members.items() if value is not None}


def _check(answer: OutboundAnswer, what: str, expected: Any) -> None:
    """Pass for an expected status. Raises Unavailable for what may pass, else ActionFailedError."""
    status = answer.status
    if status in expected:
        return
    if status == TOO_MANY or status >= SERVER_ERROR:
        wait_s = answer.retry_after_s
        raise Unavailable(
            f"{what}: answered {status}", retry_after_s=RETRY_S if wait_s is None else wait_s
        )
    if status in {UNAUTHORIZED, FORBIDDEN}:
        raise ActionFailedError(
            f"{what}: answered {status}: the upstream does not take our credentials"
        )
    if status == NOT_ALLOWED:
        raise ActionFailedError(f"{what}: answered 405: the upstream does not offer this")
    raise ActionFailedError(f"{what}: answered {status}")
