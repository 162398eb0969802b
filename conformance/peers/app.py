"""An application with sessions, logged out by GTR, back-channel logout, SSF push or SSF poll.

With `--mode webhook` it is the receiver of signed notifications instead.
"""

from collections.abc import Sequence

import anyio
import anyio.abc
import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from conformance.peers import start
from conformance.peers.backchannel import BCL_PATH, BackChannelLogout
from conformance.peers.consumer import SETConsumer
from conformance.peers.errors import HubError
from conformance.peers.hub_client import (
    POLL_METHOD,
    PUSH_METHOD,
    ConnectedStream,
    create_stream,
)
from conformance.peers.idp import list_sessions
from conformance.peers.ledger import Outcome
from conformance.peers.options import AppOptions, UserOptions
from conformance.peers.peer import Peer, json_response, read_json
from conformance.peers.people import Directory
from conformance.peers.poller import Poller
from conformance.peers.push_endpoint import PUSH_PATH, receive_push
from conformance.peers.revocation import GTR_PATH, RevocationEndpoint
from conformance.peers.sessions import SessionBook
from conformance.peers.trust import IssuerKeys
from conformance.peers.webhook import WEBHOOK_PATH, WebhookInbox

CONNECT_PAUSE_S = 0.5
STREAM_MODES = frozenset({"push", "poll"})


class NewSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session to open without asking the IdP. idp_sid: the IdP session it was born from."""

    user: str
    device: str | None = None
    sid: str | None = None
    idp_sid: str | None = None


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user who comes to sign in."""

    user: str
    device: str | None = None


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request of somebody with a session."""

    session: str


class Application(Peer[AppOptions]):
    """One application, logged out in one way."""

    def __init__(self, options: AppOptions, base_url: str) -> None:
        super().__init__(options, base_url)
        self._people = Directory(options.users)
        self._book = SessionBook(self.ledger)
        keys = IssuerKeys(self.client)
        self._revocation = RevocationEndpoint(
            own_url=f"{base_url}{GTR_PATH}",
            keys=keys,
            people=self._people,
            book=self._book,
            ledger=self.ledger,
        )
        self._backchannel = BackChannelLogout(
            keys=keys, people=self._people, book=self._book, ledger=self.ledger
        )
        self._consumer = SETConsumer(
            keys=keys, people=self._people, book=self._book, ledger=self.ledger
        )
        self._inbox = WebhookInbox(self.ledger)
        self._connected: ConnectedStream | None = None
        self._polling: anyio.CancelScope | None = None
        self._tasks: anyio.abc.TaskGroup | None = None

    @override
    def routes(self) -> list[Route]:
        """Serve the endpoints of the mode, sessions, and orders."""
        own = {
            "gtr": [Route(GTR_PATH, self._revoke, methods=["POST"])],
            "bcl": [Route(BCL_PATH, self._log_out, methods=["POST"])],
            "push": [Route(PUSH_PATH, self._receive_push, methods=["POST"])],
            "poll": [],
            "webhook": [
                Route(WEBHOOK_PATH, self._receive_webhook, methods=["POST"]),
                Route("/messages", self._list_messages),
            ],
        }[self.options.mode]
        return [
            *own,
            Route("/sessions", self._list_sessions),
            Route("/access", self._access, methods=["POST"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/control/sessions", self._create_session, methods=["POST"]),
            Route("/control/users", self._add_user, methods=["POST"]),
            Route("/control/connect", self._connect_now, methods=["POST"]),
        ]

    @override
    async def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Create the stream if told so; keep trying, because the hub may start later."""
        self._tasks = tasks
        if self.options.connect and self.options.mode in STREAM_MODES:
            tasks.start_soon(self._connect_until_done)

    async def _connect_until_done(self) -> None:
        while self._connected is None:
            try:
                await self._connect()
            except HubError as problem:
                self.ledger.record("stream.refused", Outcome.NOTED, detail=str(problem))
                await anyio.sleep(CONNECT_PAUSE_S)

    async def _connect(self) -> ConnectedStream:
        """Create the stream at the hub and, in poll mode, begin to poll. Raises HubError."""
        wanted = {"method": POLL_METHOD}
        if self.options.mode == "push":
            wanted = {
                "method": PUSH_METHOD,
                "endpoint_url": f"{self.base_url}{PUSH_PATH}",
                "authorization_header": self.options.authorization_header,
            }
        connected = await create_stream(
            self.client,
            self.options,
            wanted_delivery=wanted,
            events_requested=self.options.events_requested,
            description=f"simulated app {self.options.name}",
        )
        self._connected = connected
        self.ledger.record("stream.created", Outcome.EFFECT, stream_id=connected.stream.stream_id)
        if self.options.mode == "poll":
            self._begin_to_poll(connected)
        return connected

    def _begin_to_poll(self, connected: ConnectedStream) -> None:
        if self._polling is not None:
            self._polling.cancel()
        if self._tasks is None:
            raise HubError("not started yet")
        self._polling = anyio.CancelScope()
        self._tasks.start_soon(self._poll, connected, self._polling)

    async def _poll(self, connected: ConnectedStream, scope: anyio.CancelScope) -> None:
        poller = Poller(
            client=self.client, consumer=self._consumer, ledger=self.ledger, fault=self.fault
        )
        with scope:
            await poller.run(connected, self.options)

    async def _connect_now(self, _request: Request) -> Response:
        if self.options.mode not in STREAM_MODES:
            return json_response({"error": "only push and poll have streams"}, 400)
        try:
            connected = await self._connect()
        except HubError as problem:
            return json_response({"error": str(problem)}, 502)
        stream = connected.stream
        return json_response(
            {
                "stream_id": stream.stream_id,
                "iss": stream.iss,
                "aud": stream.aud,
                "endpoint_url": stream.delivery.endpoint_url,
                "events_delivered": stream.events_delivered,
            },
            201,
        )

    async def _revoke(self, request: Request) -> Response:
        return await self._revocation.answer(
            request, self.options, issuer=self.options.subject_issuer
        )

    async def _log_out(self, request: Request) -> Response:
        return await self._backchannel.answer(request, self.options)

    async def _receive_push(self, request: Request) -> Response:
        return await receive_push(
            request,
            connected=self._connected,
            consumer=self._consumer,
            options=self.options,
            ledger=self.ledger,
        )

    async def _receive_webhook(self, request: Request) -> Response:
        return await self._inbox.answer(request, self.options.webhook_secret)

    async def _list_messages(self, request: Request) -> Response:
        return json_response(self._inbox.messages(request.query_params.get("type")))

    async def _list_sessions(self, request: Request) -> Response:
        return json_response(list_sessions(request, self._people, self._book))

    async def _access(self, request: Request) -> Response:
        """Answer as the application would: 200 to a live session, else 401."""
        wanted = await read_json(request, Access)
        session = self._book.get(wanted.session)
        if session is None or session.ended_at_s is not None:
            return json_response({"error": "login_required"}, 401)
        return json_response({"user": session.user_id, "device": session.device})

    async def _login(self, request: Request) -> Response:
        """Sign a user in through the IdP; what the IdP refuses is refused here."""
        wanted = await read_json(request, SignIn)
        if self.options.idp is None:
            return json_response({"error": "no idp is configured"}, 400)
        body = {"user": wanted.user, "device": wanted.device, "app": self.options.name}
        try:
            answer = await self.client.post(f"{self.options.idp}/login", json=body)
        except httpx2.HTTPError:
            return json_response({"error": "temporarily_unavailable"}, 503)
        if not answer.is_success:
            self.ledger.record("login.denied", Outcome.REFUSED, user=wanted.user)
            return Response(answer.content, answer.status_code, media_type="application/json")
        idp_sid = str(answer.json()["sid"])
        user = self._people.get_or_add(wanted.user)
        session = self._book.open(user, wanted.device, idp_sid=idp_sid)
        return json_response(session.render())

    async def _create_session(self, request: Request) -> Response:
        wanted = await read_json(request, NewSession)
        user = self._people.get_or_add(wanted.user)
        session = self._book.open(user, wanted.device, sid=wanted.sid, idp_sid=wanted.idp_sid)
        return json_response(session.render(), 201)

    async def _add_user(self, request: Request) -> Response:
        user = self._people.add(await read_json(request, UserOptions))
        return json_response({"id": user.user_id}, 201)


def main(argv: Sequence[str]) -> None:
    """Run the application as a process. Raises SystemExit for wrong options."""
    start.main("app", argv)
