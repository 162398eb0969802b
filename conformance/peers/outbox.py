"""The vendor's outbox: pushes each SET until it is taken, refused for good, or given up.

::

    pending --202--> delivered
            --4xx--> refused
            --attempts used up, or outbox closed--> gave_up
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import anyio.abc
import httpx2

from conformance.peers.clock import now_s, timestamp
from conformance.peers.errors import OutboxFullError
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import VendorOptions

PENDING_MAX = 20_000
SETTLED_KEPT_MAX = 20_000
ERROR_BODY_CHARS_MAX = 500
TAKEN = frozenset({200, 202, 204})
PASSING = frozenset({408, 425, 429})
NO_ANSWER = 0


class DeliveryState(StrEnum):
    """What became of a SET."""

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"
    GAVE_UP = "gave_up"


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One SET on its way. ordering_key: SETs of one key are delivered in order (PUSH-44)."""

    jti: str
    body: bytes
    url: str
    headers: Mapping[str, str]
    ordering_key: str
    attempts_max: int
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    status: int = NO_ANSWER
    answer: str = ""
    first_sent_at_s: float | None = None
    settled_at_s: float | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def render(self) -> dict[str, object]:
        """Render for the control API. status 0: no answer came."""
        return {
            "jti": self.jti,
            "state": self.state.value,
            "status": self.status,
            "answer": self.answer,
            "attempts": self.attempts,
            "first_sent_at": _moment(self.first_sent_at_s),
            "settled_at": _moment(self.settled_at_s),
        }


class Outbox:
    """Deliveries under way and settled."""

    def __init__(self, client: httpx2.AsyncClient, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._pending: dict[int, Delivery] = {}
        self._settled: OrderedDict[int, Delivery] = OrderedDict()
        self._last_of_key: dict[str, Delivery] = {}

    def submit(
        self, delivery: Delivery, options: VendorOptions, tasks: anyio.abc.TaskGroup
    ) -> None:
        """Take a SET; its delivery begins after the one before it with the same ordering key.

        Raises OutboxFullError.
        """
        if len(self._pending) >= PENDING_MAX:
            raise OutboxFullError
        before = self._last_of_key.get(delivery.ordering_key)
        self._last_of_key[delivery.ordering_key] = delivery
        self._pending[id(delivery)] = delivery
        tasks.start_soon(self._deliver, delivery, before, options)

    def give_up_all(self) -> int:
        """Stop trying for everything pending; return how many."""
        pending = list(self._pending.values())
        for delivery in pending:
            self._settle(delivery, DeliveryState.GAVE_UP)
        return len(pending)

    def deliveries(self) -> list[dict[str, object]]:
        """List what is settled and what is pending, oldest first."""
        return [
            delivery.render() for delivery in (*self._settled.values(), *self._pending.values())
        ]

    async def _deliver(
        self, delivery: Delivery, before: Delivery | None, options: VendorOptions
    ) -> None:
        if before is not None:
            await before.settled.wait()
        while not delivery.settled.is_set():
            retry_after_s = await self._attempt(delivery, options)
            if not delivery.settled.is_set() and delivery.attempts >= delivery.attempts_max:
                self._settle(delivery, DeliveryState.GAVE_UP)
            await _pause(delivery, retry_delay_s(delivery.attempts, retry_after_s, options))

    async def _attempt(self, delivery: Delivery, options: VendorOptions) -> float | None:
        """Send once and settle if the answer is final; return the Retry-After in seconds."""
        delivery.attempts += 1
        delivery.first_sent_at_s = delivery.first_sent_at_s or now_s()
        sent_at_s = now_s()
        retry_after_s = None
        try:
            answer = await self._client.post(
                delivery.url,
                content=delivery.body,
                headers=dict(delivery.headers),
                timeout=options.answer_timeout_s,
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            delivery.status, delivery.answer = NO_ANSWER, type(problem).__name__
        else:
            delivery.status = answer.status_code
            delivery.answer = answer.text[:ERROR_BODY_CHARS_MAX]
            retry_after_s = _seconds(answer.headers.get("retry-after"))
        self._ledger.record(
            "push.answered",
            Outcome.NOTED,
            request_id=delivery.jti,
            status=delivery.status,
            attempt=delivery.attempts,
            answer=delivery.answer,
            sent_at=sent_at_s,
        )
        if not delivery.settled.is_set() and (state := classify(delivery.status)):
            self._settle(delivery, state)
        return retry_after_s

    def _settle(self, delivery: Delivery, state: DeliveryState) -> None:
        delivery.state = state
        delivery.settled_at_s = now_s()
        delivery.settled.set()
        self._pending.pop(id(delivery), None)
        self._settled[id(delivery)] = delivery
        if len(self._settled) > SETTLED_KEPT_MAX:
            self._settled.popitem(last=False)
        if self._last_of_key.get(delivery.ordering_key) is delivery:
            del self._last_of_key[delivery.ordering_key]
        outcome = Outcome.EFFECT if state is DeliveryState.DELIVERED else Outcome.REFUSED
        self._ledger.record(
            f"set.{state.value}", outcome, request_id=delivery.jti, attempts=delivery.attempts
        )


def classify(status: int) -> DeliveryState | None:
    """Decide what a status means for the SET; None is "try again".

    A plain vendor: it does not read the error codes of RFC 8935, any other 4xx and 3xx is final.
    """
    if status in TAKEN:
        return DeliveryState.DELIVERED
    if status == NO_ANSWER or status in PASSING or status >= 500:  # noqa: PLR2004 - server errors
        return None
    return DeliveryState.REFUSED


def retry_delay_s(attempts: int, retry_after_s: float | None, options: VendorOptions) -> float:
    """Return how long to wait: what the hub asked for within reason, else doubling."""
    if retry_after_s is not None:
        return min(retry_after_s, options.retry_after_ceiling_s)
    doublings = min(attempts - 1, 16)
    return min(options.retry_first_s * 2.0**doublings, options.retry_ceiling_s)


def headers_for(content_type: str, authorization: str | None) -> dict[str, str]:
    """Build the headers of a push (PUSH-2, PUSH-3, PUSH-5)."""
    headers = {"content-type": content_type, "accept": "application/json"}
    if authorization is not None:
        headers["authorization"] = authorization
    return headers


async def _pause(delivery: Delivery, delay_s: float) -> None:
    """Wait, but no longer than until the delivery is settled from elsewhere."""
    try:
        await asyncio.wait_for(delivery.settled.wait(), delay_s)
    except TimeoutError:
        return


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None  # An HTTP date: the ordinary back-off does.


def _moment(at_s: float | None) -> str | None:
    return None if at_s is None else timestamp(at_s)
