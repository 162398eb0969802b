"""The risk and session API over HTTP, without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from risk import OPERATIONS
from risk import routes as risk_routes
from risk.contexts.model import StoredRecord
from risk.deps import RiskDeps
from risk.feedback import routes as feedback_routes
from risk.ips.memory import IPClaims
from risk.ips.model import Reporter
from risk.lookups import routes as lookup_routes
from risk.model import Assessment, Level, SignalMode
from risk.sql.store import Connection
from runtime.audit import AuditNote
from runtime.caller import Caller
from runtime.changes import ChangeFeed
from runtime.clock import FixedClock
from runtime.database import Database
from runtime.errors import Refused
from runtime.notify import Notifier
from runtime.writer import Operation
from tests.risk.kit import (
    CAEP,
    IDP,
    LAPTOP,
    MDM,
    NOW,
    TENANT,
    TINA,
    World,
    device_risk,
    hours,
    signal,
)

USER = "email:tina@customer.example"
SCOPES = frozenset({"risk.read", "risk.write", "sessions.write"})


class DirectWriter:
    """Runs each operation in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, operation: Operation[Any, Any], item: Any) -> Any:
        async with self._database.transaction() as connection:
            return (await operation.handle(connection, [item]))[0]


@dataclass
class Spine:
    """What the assembly would do with assessments; keeps them."""

    responded: list[Assessment] = field(default_factory=list)
    audited: list[AuditNote] = field(default_factory=list)
    wakes: int = 0

    async def add_audit(
        self, _connection: Connection, note: AuditNote, /, *, now: datetime
    ) -> None:
        assert now.tzinfo
        self.audited.append(note)

    async def respond(
        self, _connection: Connection, assessments: Sequence[Assessment], *, now: datetime
    ) -> None:
        assert now.tzinfo
        self.responded.extend(assessments)

    def wake(self) -> None:
        self.wakes += 1


@dataclass
class Api:
    """A client of one caller."""

    world: World
    http: httpx2.AsyncClient
    spine: Spine
    clock: FixedClock
    caller: dict[str, Any]

    async def risk(self, body: object, user: str = USER) -> httpx2.Response:
        return await self.http.put(f"/api/v1/users/{quote(user, safe='')}/risk", json=body)

    async def session(self, sid: str, **body: Any) -> httpx2.Response:
        return await self.http.put(f"/v1/sessions/{quote(sid, safe='')}", json=body)


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    caller: dict[str, Any] = {"tenant_id": TENANT, "client_id": "soc", "scopes": SCOPES}
    spine, clock = Spine(), FixedClock(NOW)

    async def lock(_connection: Connection, tenant_ids: set[str]) -> None:
        assert tenant_ids == {TENANT}

    async def caps(
        _connection: Connection, _tenant_ids: set[str]
    ) -> Mapping[tuple[str, str], Level]:
        return world.caps

    async def app_issuer(_tenant_id: str, app_id: str) -> str | None:
        return IDP if app_id == "app_idp" else None

    async def reporter_of(_tenant_id: str, client_id: str) -> Reporter:
        return Reporter(name=client_id, issuer=None, mode=SignalMode.LOG_ONLY, level_cap=None)

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return JSONResponse({"detail": error.detail, "at": error.pointers}, error.status)

    async def vouches(_caller: Caller) -> bool:
        return True

    async def has_app(_tenant_id: str, app_id: str) -> bool:
        return app_id == "app_idp"

    changes = ChangeFeed(world.database, Notifier())
    routes = (*risk_routes.ROUTES, *feedback_routes.ROUTES, *lookup_routes.ROUTES)
    app = Starlette(routes=list(routes), exception_handlers={Refused: refused})
    app.state.risk = RiskDeps(
        db=world.database,
        writer=DirectWriter(world.database),
        clock=clock,
        lock=lock,
        caps=caps,
        respond=spine.respond,
        add_audit=spine.add_audit,
        responded=spine.wake,
        app_issuer=app_issuer,
        vouches=vouches,
        record_of=lambda _ip: StoredRecord(),
        has_app=has_app,
        ip_claims=IPClaims(world.database, changes),
        reporter_of=reporter_of,
        catch_up=changes.catch_up,
    )
    transport = httpx2.ASGITransport(app=_as_caller(app, caller))
    async with httpx2.AsyncClient(transport=transport, base_url="http://hub.example") as http:
        yield Api(world, http, spine, clock, caller)


def _as_caller(app: ASGIApp, caller: Mapping[str, Any]) -> ASGIApp:
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"caller": Caller(**caller)}}, receive, send)

    return called


# --- PUT and GET risk ---------------------------------------------------------------------------


async def test_put_answers_201_then_200_and_get_shows_it(api: Api) -> None:
    user_id = await api.world.add_user(TINA)
    first = await api.risk({"riskLevel": "HIGH", "riskReason": "seen on camera"})
    assert first.status_code == 201
    body = first.json()
    assert (body["userId"], body["riskLevel"], body["previousLevel"]) == (user_id, "HIGH", "LOW")
    assert "seen on camera" in body["riskReason"]
    assert (await api.risk({"riskLevel": "HIGH"})).status_code == 200
    shown = await api.http.get(f"/api/v1/users/{user_id}/risk")
    assert (shown.status_code, shown.json()["riskLevel"]) == (200, "HIGH")
    assert shown.headers["cache-control"] == "no-store"
    assert [each.level for each in api.spine.responded] == [Level.HIGH, Level.HIGH]
    assert api.spine.wakes == 2


@pytest.mark.parametrize(
    "body",
    [
        {"riskLevel": "EXTREME"},
        {"riskLevel": "high"},
        {},
        {"riskLevel": "HIGH", "riskReason": "x" * 501},
        {"riskLevel": "HIGH", "riskReason": 7},
        ["HIGH"],
    ],
)
async def test_a_bad_put_is_400_and_changes_nothing(api: Api, body: object) -> None:
    await api.world.add_user(TINA)
    assert (await api.risk(body)).status_code == 400
    assert (await api.http.put(f"/api/v1/users/{USER}/risk", content=b"{")).status_code == 400
    assert await api.world.level() == "LOW"
    assert api.spine.responded == []


async def test_500_characters_of_reason_are_taken(api: Api) -> None:
    await api.world.add_user(TINA)
    assert (await api.risk({"riskLevel": "LOW", "riskReason": "x" * 500})).status_code == 201


async def test_an_unknown_user_is_404(api: Api) -> None:
    for answer in (
        await api.risk({"riskLevel": "HIGH"}),
        await api.http.get(f"/api/v1/users/{USER}/risk"),
        await api.http.get(f"/v1/risk/users/{USER}"),
        await api.http.get(f"/v1/risk/users/{USER}/history"),
        await api.http.get(f"/v1/risk/users/{USER}/explain"),
        await api.http.get("/v1/sessions", params={"user": USER}),
    ):
        assert answer.status_code == 404


async def test_a_reference_with_slashes_works_in_a_path(api: Api) -> None:
    await api.world.add_user({"format": "iss_sub", "iss": IDP, "sub": "u-1"})
    reference = f"iss_sub:{IDP}|u-1"
    assert (await api.risk({"riskLevel": "MEDIUM"}, user=reference)).status_code == 201
    shown = await api.http.get(f"/v1/risk/users/{quote(reference, safe='')}")
    assert shown.json()["level"] == "MEDIUM"


async def test_scopes_are_needed(api: Api) -> None:
    await api.world.add_user(TINA)
    api.caller["scopes"] = frozenset({"risk.read"})
    assert (await api.risk({"riskLevel": "HIGH"})).status_code == 403
    assert (await api.session("s1", user=TINA, iss=IDP)).status_code == 403
    api.caller["scopes"] = frozenset({"ssf.read"})
    assert (await api.http.get("/v1/detections")).status_code == 403
    api.caller["scopes"] = frozenset({"sessions.read"})
    reading = {"iss": IDP}
    assert (await api.http.get("/v1/sessions/s1", params=reading)).status_code == 404
    assert (await api.http.get("/v1/sessions", params={"user": USER})).status_code == 200
    assert (await api.session("s1", user=TINA, iss=IDP)).status_code == 403


async def test_another_tenants_user_is_404(api: Api) -> None:
    await World(api.world.database, tenant_id="blue").add_user(TINA)
    assert (await api.risk({"riskLevel": "HIGH"})).status_code == 404


async def test_a_wrong_method_names_the_right_ones(api: Api) -> None:
    answer = await api.http.post(f"/api/v1/users/{USER}/risk")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT"}
    assert (await api.http.patch("/v1/sessions/s1")).headers["allow"].count("DELETE") == 1


# --- lists and explanations ---------------------------------------------------------------------


async def test_history_and_explanation_tell_why(api: Api) -> None:
    user_id = await api.world.add_user(TINA)
    await api.world.assess(device_risk("high", txn="t-1"))
    await api.risk({"riskLevel": "LOW"})
    history = (await api.http.get(f"/v1/risk/users/{user_id}/history")).json()["items"]
    assert [(each["previous_level"], each["level"]) for each in history] == [("LOW", "HIGH")]
    shown = (await api.http.get(f"/v1/risk/users/{user_id}/explain")).json()
    assert (shown["level"], shown["policy"]["rule"]) == ("HIGH", "high-contain")
    (evidence,) = shown["evidence"]
    assert evidence["name"] == "device_compromised"
    assert "device_healthy" in evidence["clears_on"]
    assert evidence["via"][0]["kind"] == "owner"
    assert evidence["evidence"][0]["signal_id"].startswith("sig_")
    assert shown["pin"]["level"] == "LOW"
    assert (await api.http.get(f"/api/v1/users/{user_id}/risk")).json()["pin"]["set_by"] == "soc"


async def test_an_explanation_shows_remedies(api: Api) -> None:
    await api.world.add_user(TINA)
    event = {"credential_type": "password", "change_type": "update"}
    await api.world.assess(signal(CAEP + "credential-change", event, iss=IDP))
    shown = (await api.http.get(f"/v1/risk/users/{USER}/explain")).json()
    assert [each["remedy"] for each in shown["remedies"]] == ["credential_changed:password"]


async def test_lists_are_paged(api: Api) -> None:
    for number in range(3):
        about = {"format": "email", "email": f"u{number}@customer.example"}
        await api.world.add_user(about)
        await api.world.assess(device_risk("high", about=about))
    for path in ("/v1/risk/users", "/v1/detections"):
        first = (await api.http.get(path, params={"limit": 2})).json()
        assert len(first["items"]) == 2
        rest = await api.http.get(path, params={"limit": 2, "cursor": first["next_cursor"]})
        assert len(rest.json()["items"]) == 1
        assert "next_cursor" not in rest.json()
    high = await api.http.get("/v1/risk/users", params={"level": "HIGH", "since": NOW.isoformat()})
    assert len(high.json()["items"]) == 3
    assert (await api.http.get("/v1/risk/users", params={"level": "LOW"})).json()["items"] == []


async def test_detections_are_filtered(api: Api) -> None:
    await api.world.put_session("s1", device="LT-1")
    await api.world.assess(device_risk("high", about=LAPTOP))

    async def count(**params: str) -> int:
        answer = await api.http.get("/v1/detections", params=params)
        return len(answer.json()["items"])

    device_id = (await api.http.get("/v1/detections")).json()["items"][0]["entity"]["id"]
    assert await count(device=device_id, state="active") == 1
    assert await count(user=USER) == 0
    assert await count(state="remediated") == 0


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/v1/detections", {"limit": "0"}),
        ("/v1/detections", {"limit": "201"}),
        ("/v1/detections", {"limit": "ten"}),
        ("/v1/detections", {"limit": "٣"}),
        ("/v1/detections", {"cursor": "x" * 65}),
        ("/v1/detections", {"state": "gone"}),
        ("/v1/risk/users", {"level": "NONE"}),
        ("/v1/risk/users", {"since": "yesterday"}),
        ("/v1/sessions", {}),
    ],
)
async def test_bad_queries_are_400(api: Api, path: str, params: dict[str, str]) -> None:
    assert (await api.http.get(path, params=params)).status_code == 400


# --- sessions -----------------------------------------------------------------------------------


async def test_a_session_is_put_read_listed_and_deleted(api: Api) -> None:
    first = await api.session("a/b c", user=TINA, device="LT-1", iss=IDP)
    assert first.status_code == 201
    assert (await api.session("a/b c", user=TINA, iss=IDP)).status_code == 200
    path, query = f"/v1/sessions/{quote('a/b c', safe='')}", {"iss": IDP}
    shown = (await api.http.get(path, params=query)).json()
    assert (shown["sid"], shown["live"], shown["user_id"]) == (
        "a/b c",
        True,
        first.json()["user_id"],
    )
    listed = await api.http.get("/v1/sessions", params={"user": USER})
    assert [each["session_id"] for each in listed.json()["items"]] == [shown["session_id"]]
    api.clock.advance(60)
    assert (await api.http.delete(path, params=query)).status_code == 204
    assert (await api.http.delete(path, params=query)).status_code == 204
    assert (await api.http.get(path, params=query)).json()["live"] is False
    assert (
        await api.session("a/b c", user=TINA, iss=IDP, started_at=NOW.timestamp())
    ).status_code == 409


async def test_a_session_without_a_device_is_shown_without_one(api: Api) -> None:
    assert "device_id" not in (await api.session("s1", user=USER, iss=IDP)).json()


async def test_an_app_speaks_of_its_own_sessions(api: Api) -> None:
    api.caller["app_id"] = "app_idp"
    put = await api.session("s1", user=TINA)
    assert (put.status_code, put.json()["iss"]) == (201, IDP)
    assert (await api.session("s1", user=TINA, iss=IDP)).status_code == 200
    assert (await api.session("s1", user=TINA, iss=MDM)).status_code == 403
    assert (await api.http.get("/v1/sessions/s1")).status_code == 200


@pytest.mark.parametrize("app_id", [None, "app_without_issuer"])
async def test_without_an_issuer_of_its_own_a_caller_names_one(
    api: Api, app_id: str | None
) -> None:
    api.caller["app_id"] = app_id
    assert (await api.session("s1", user=TINA)).status_code == 400
    assert (await api.session("s1", user=TINA, iss=7)).status_code == 400
    assert (await api.session("s1", user=TINA, iss=IDP)).status_code == 201


async def test_an_unknown_session_is_404(api: Api) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.http.request(method, "/v1/sessions/nowhere", params={"iss": IDP})
        assert answer.status_code == 404


async def test_a_session_of_somebody_unknown_by_reference_is_404(api: Api) -> None:
    assert (await api.session("s1", user="usr_nobody", iss=IDP)).status_code == 404
    assert (await api.session("s1", user=TINA, device="dev_no", iss=IDP)).status_code == 404
    await api.session("s1", user=TINA, iss=IDP)
    other = {"format": "email", "email": "other@customer.example"}
    assert (await api.session("s1", user=other, iss=IDP)).status_code == 409


async def test_a_session_on_a_compromised_device_raises_its_user_within_a_look(api: Api) -> None:
    await api.world.put_session("s1", device="LT-1")
    await api.world.assess(device_risk("high", about=LAPTOP))
    other = {"format": "email", "email": "other@customer.example"}
    put = await api.session("s2", user=other, device="LT-1", iss=IDP)
    made = await api.world.reassess(NOW + hours(1))
    assert put.json()["user_id"] in {each.user_id for each in made}


def test_the_hot_writes_are_named() -> None:
    assert [each.name for each in OPERATIONS] == [
        "risk.put_session",
        "risk.end_session",
        "risk.report_ips",
        "risk.settle_stand",
        "risk.settle_step_up",
        "risk.note_session_app",
        "risk.share_trail",
        "risk.prove_session",
        "risk.record_context",
        "risk.record_good",
        "risk.withdraw_session",
        "risk.record_sign_in",
        "risk.count_failures",
        "risk.finish_review",
        "risk.put_off_review",
    ]


async def test_a_user_without_a_word_is_low(api: Api) -> None:
    user_id = await api.world.add_user(TINA, label="Tina Smith")
    shown = (await api.http.get(f"/v1/risk/users/{user_id}")).json()
    assert (shown["label"], shown["level"], shown["computed_at"]) == ("Tina Smith", "LOW", None)
    short = (await api.http.get(f"/api/v1/users/{user_id}/risk")).json()
    assert (short["riskLevel"], short["reasons"]) == ("LOW", [])


async def test_a_body_with_two_meanings_is_refused(api: Api) -> None:
    path = f"/api/v1/users/{quote(USER, safe='')}/risk"
    twice = b'{"riskLevel": "LOW", "riskLevel": "HIGH"}'
    for body in (twice, b'{"riskLevel": "HIGH", "riskReason": "\\u0000"}', b"[", b"[]"):
        refused = await api.http.put(path, content=body)
        assert refused.status_code == 400
    assert not api.spine.responded
    assert not api.spine.audited
