"""The identity provider: sign-ins, sessions, SCIM groups, Global Token Revocation.

A user in the quarantine group is refused at sign-in; existing sessions end only by revocation.
"""

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from conformance.peers import pages, start
from conformance.peers.errors import HubError
from conformance.peers.groups import Group
from conformance.peers.hub_client import end_session, register_session, settle_step_up
from conformance.peers.ledger import Outcome
from conformance.peers.options import IdPOptions, UserOptions
from conformance.peers.peer import Peer, json_response, read_json
from conformance.peers.people import Directory, Selection, User
from conformance.peers.revocation import GTR_PATH, RevocationEndpoint
from conformance.peers.scim import SCIMServer
from conformance.peers.sessions import Session, SessionBook
from conformance.peers.trust import IssuerKeys


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sign-in of a user on a device. app: the application that asks, for the ledger."""

    user: str
    device: str | None = None
    app: str | None = None
    sid: str | None = None
    register: bool = True


class NewGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group with the ids of its members."""

    id: str
    display_name: str = "group"
    members: tuple[str, ...] = ()


class IdentityProvider(Peer[IdPOptions]):
    """An IdP with people, groups and sessions."""

    def __init__(self, options: IdPOptions, base_url: str) -> None:
        super().__init__(options, base_url)
        self._people = Directory(options.users)
        self._book = SessionBook(self.ledger)
        self._browsers = pages.Browsers()
        self._scim = SCIMServer(base_url=base_url, people=self._people, ledger=self.ledger)
        self._scim.add_group(
            Group(group_id=options.quarantine_group, display_name="Quarantined users")
        )
        self._revocation = RevocationEndpoint(
            own_url=f"{base_url}{GTR_PATH}",
            keys=IssuerKeys(self.client),
            people=self._people,
            book=self._book,
            ledger=self.ledger,
        )

    @property
    def issuer(self) -> str:
        """The `iss` of its sessions and of its users' iss_sub subjects."""
        return self.options.issuer or self.base_url

    @override
    def routes(self) -> list[Route]:
        """Serve sign-ins, SCIM and revocation, and take orders."""
        return [
            *self._scim.routes(lambda: self.options.scim_token),
            Route(GTR_PATH, self._revoke, methods=["POST"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/sign-in", self._show_sign_in),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/step-up", self._show_step_up),
            Route("/step-up", self._step_up, methods=["POST"]),
            Route("/sign-out", self._sign_out),
            Route("/sessions", self._list_sessions),
            Route("/control/sessions", self._create_session, methods=["POST"]),
            Route("/control/users", self._add_user, methods=["POST"]),
            Route("/control/groups", self._add_group, methods=["POST"]),
            Route("/control/groups/{id}", self._show_group),
        ]

    async def _revoke(self, request: Request) -> Response:
        return await self._revocation.answer(request, self.options, issuer=self.issuer)

    async def _login(self, request: Request) -> Response:
        wanted = await read_json(request, SignIn)
        user = self._people.find(wanted.user)
        if user is None:
            return json_response({"error": "access_denied", "reason": "unknown user"}, 403)
        if self._scim.is_member(self.options.quarantine_group, user.user_id):
            self.ledger.record("login.denied", Outcome.REFUSED, user=user.user_id, app=wanted.app)
            return json_response({"error": "access_denied", "reason": "quarantined"}, 403)
        self.ledger.record("login.allowed", Outcome.NOTED, user=user.user_id, app=wanted.app)
        return await self._open(user, wanted, status=200)

    async def _create_session(self, request: Request) -> Response:
        wanted = await read_json(request, SignIn)
        return await self._open(self._people.get_or_add(wanted.user), wanted, status=201)

    async def _open(self, user: User, wanted: SignIn, *, status: int) -> Response:
        """Open a session and register it at the hub before anybody may use it."""
        session = self._book.open(user, wanted.device, sid=wanted.sid)
        registered = False
        if wanted.register and self.options.register_sessions:
            try:
                registered = await register_session(
                    self.client,
                    self.options,
                    session,
                    issuer=self.issuer,
                    user=self._subject_of(user),
                )
            except HubError as problem:
                return json_response(
                    {"error": "temporarily_unavailable", "reason": str(problem)}, 502
                )
        return json_response({**session.render(), "registered": registered}, status)

    async def _show_sign_in(self, request: Request) -> Response:
        return pages.sign_in_page(request.query_params)

    async def _sign_in(self, request: Request) -> Response:
        """Open a session for a browser; its cookie is its own, and the hub knows its hash.

        Fields: `user`, and `device` where a managed browser names its own.
        """
        fields = await pages.read_form(request)
        user = self._people.find(fields.get("user", ""))
        if user is None or self._scim.is_member(self.options.quarantine_group, user.user_id):
            return json_response({"error": "access_denied"}, 403)
        session = self._book.open(user, fields.get("device") or None)
        signed_in = self._browsers.open(session.sid)
        try:
            await register_session(
                self.client,
                self.options,
                session,
                issuer=self.issuer,
                user=self._subject_of(user),
                cookie_sha256=signed_in.cookie_sha256,
            )
        except HubError as problem:
            return json_response({"error": "temporarily_unavailable", "reason": str(problem)}, 502)
        answer = pages.back(fields, self.options.return_origins, "Signed in")
        return pages.set_cookie(answer, signed_in)

    async def _show_step_up(self, request: Request) -> Response:
        if self._browsers.of(request) is None:
            return pages.sign_in_page({"return_to": request.query_params.get("return_to", "")})
        return pages.step_up_page(request.query_params)

    async def _step_up(self, request: Request) -> Response:
        """Take the second factor, or the refusal, and tell the hub."""
        fields = await pages.read_form(request)
        signed_in = self._browsers.of(request)
        if signed_in is None:
            return json_response({"error": "login_required"}, 401)
        is_passed = fields.get("outcome") == "passed"
        body: dict[str, object] = {"iss": self.issuer, "outcome": fields.get("outcome", "refused")}
        if is_passed:
            body |= {"acr": pages.reached(fields.get("acr_values", "")), "amr": pages.STRONG_AMR}
        self.ledger.record("step_up.ended", Outcome.NOTED, sid=signed_in.sid, passed=is_passed)
        try:
            await settle_step_up(
                self.client,
                self.options,
                signed_in.sid,
                step_up_id=fields.get("step_up", ""),
                body=body,
            )
        except HubError as problem:
            return json_response({"error": "temporarily_unavailable", "reason": str(problem)}, 502)
        return pages.back(fields, self.options.return_origins, "Confirmed")

    async def _sign_out(self, request: Request) -> Response:
        signed_in = self._browsers.of(request)
        if signed_in is not None:
            self._browsers.forget(signed_in)
            await end_session(self.client, self.options, signed_in.sid, issuer=self.issuer)
        return pages.back({}, (), "Signed out")

    def _subject_of(self, user: User) -> dict[str, str]:
        if self.options.session_subject == "email" and user.email is not None:
            return {"format": "email", "email": user.email}
        return {"format": "iss_sub", "iss": self.issuer, "sub": user.sub}

    async def _list_sessions(self, request: Request) -> Response:
        return json_response(list_sessions(request, self._people, self._book))

    async def _add_user(self, request: Request) -> Response:
        user = self._people.add(await read_json(request, UserOptions))
        return json_response({"id": user.user_id, "user_name": user.user_name}, 201)

    async def _add_group(self, request: Request) -> Response:
        wanted = await read_json(request, NewGroup)
        group = Group(group_id=wanted.id, display_name=wanted.display_name, members=wanted.members)
        self._scim.add_group(group)
        return json_response({"id": group.group_id, "members": group.members}, 201)

    async def _show_group(self, request: Request) -> Response:
        group = self._scim.group(request.path_params["id"])
        if group is None:
            return json_response({"error": "not_found"}, 404)
        return json_response({"id": group.group_id, "members": group.members})


def list_sessions(
    request: Request, people: Directory, book: SessionBook
) -> list[dict[str, object]]:
    """List live sessions, by `?user=` and `?device=`; with `?all=true` ended ones too."""
    user_ids = None
    if name := request.query_params.get("user"):
        user = people.find(name)
        user_ids = frozenset({user.user_id} if user else ())
    device = request.query_params.get("device")
    selection = Selection(user_ids=user_ids, device_ids=frozenset({device}) if device else None)
    alive = request.query_params.get("all") != "true"
    found: list[Session] = book.matching(selection, alive=alive)
    return [session.render() for session in found]


def main(argv: Sequence[str]) -> None:
    """Run the identity provider as a process. Raises SystemExit for wrong options."""
    start.main("idp", argv)
