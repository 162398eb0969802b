"""The middleware in a real app process, asking a real hub; and what it does with every answer."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from hub.middleware import CACHE_ENTRIES_MAX, SessionCheck
from tests.hub.commands import LIMIT_S, ROOT, Served

COOKIE = "a-cookie-of-the-middleware-01"
ISSUER = "https://middleware.customer.example"
STEP_UP = "https://login.customer.example/step-up"
SIGN_IN = "https://login.customer.example/in"
#: of a request, while a policy is on its way to every process
TRIES_MAX = 1_000


@contextmanager
def app_process(**arguments: Any) -> Iterator[httpx2.Client]:
    """Run an app behind the middleware."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.guarded_app", json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx2.Client(base_url=url, timeout=LIMIT_S, follow_redirects=False) as client:
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


@pytest.mark.requirement("FWA-30", "FWA-33", "FWA-34", "FWA-42", "AZ-5")
def test_an_app_with_three_more_lines_is_guarded(hub_process: Served) -> None:
    headers = {"authorization": f"Bearer {hub_process.token}"}
    with httpx2.Client(base_url=hub_process.issuer, headers=headers, timeout=LIMIT_S) as admin:
        setting = {
            "cookies": ["sid"],
            "sign_in_url": "https://login.customer.example/in",
            "tells_user": True,
        }
        made = admin.post("/admin/v1/apps", json={"name": "guarded", "forward_auth": setting})
        app_id = made.json()["id"]
        asking = {"name": "guarded", "scopes": ["sessions.evaluate"], "app_id": app_id}
        token = admin.post("/admin/v1/clients", json=asking).json()["token"]
        session = {
            "iss": ISSUER,
            "user": {"format": "email", "email": "mia@customer.example"},
            "cookie_sha256": hashlib.sha256(COOKIE.encode()).hexdigest(),
        }
        assert admin.put("/v1/sessions/mia", json=session).is_success

        known = {"cookie": f"sid={COOKIE}; theme=dark", "x-signalhub-user": "usr_forged"}
        arguments = {"hub": hub_process.issuer, "token": token, "app_id": app_id, "cookie": "sid"}
        with app_process(**arguments, public=["/healthz"]) as app:
            passed = app.post("/notes?x=1", headers=known, content=b"hello")
            assert passed.status_code == 200, passed.text
            assert passed.json()["state"]["user"].startswith("usr_")
            assert passed.json()["state"]["session_id"].startswith("ses_")
            assert "x-signalhub-user" not in passed.json()["headers"]
            assert passed.json()["body"] == "hello"

            nobody = app.get("/notes", headers={"accept": "text/html"})
            assert nobody.status_code == 302
            assert nobody.headers["location"].startswith("https://login.customer.example/in")
            assert app.get("/notes").status_code == 401
            assert app.get("/healthz", headers=known).json()["state"] is None

            assert admin.delete(f"/v1/sessions/mia?iss={ISSUER}").is_success
            ended = app.post("/notes?x=2", headers=known)
            assert ended.status_code == 401
            assert ended.headers["set-cookie"].startswith("sid=; ")


@dataclass
class Enforced:
    """An app at a served hub with a policy of its own. guard: how it is guarded."""

    admin: httpx2.Client
    arguments: dict[str, Any]
    guard: dict[str, Any]
    policy_id: str

    def patch(self, kind: str, of: str, **members: Any) -> None:
        answer = self.admin.patch(f"/admin/v1/{kind}/{of}", json=members)
        assert answer.is_success, answer.text


@pytest.fixture
def enforced(hub_process: Served) -> Iterator[Enforced]:
    headers = {"authorization": f"Bearer {hub_process.token}"}
    with httpx2.Client(base_url=hub_process.issuer, headers=headers, timeout=LIMIT_S) as admin:

        def made(kind: str, document: dict[str, Any]) -> dict[str, Any]:
            answer = admin.post(f"/admin/v1/{kind}", json=document)
            assert answer.status_code == 201, answer.text
            body: dict[str, Any] = answer.json()
            return body

        guard = {"cookies": ["sid"], "sign_in_url": SIGN_IN, "step_up_url": STEP_UP}
        app_id = made("apps", {"name": "stepped", "forward_auth": guard})["id"]
        asking = {"name": "stepped", "scopes": ["sessions.evaluate"], "app_id": app_id}
        token = made("clients", asking)["token"]
        policy = {"name": "stepped", "apps": [app_id], "mode": "enforce", "rules": []}
        arguments = {"hub": hub_process.issuer, "token": token, "app_id": app_id, "cookie": "sid"}
        enforced = Enforced(admin, arguments, guard, made("policies", policy)["id"])
        protection = admin.get("/admin/v1/policies/session-protection").json()["mode"]
        enforced.patch("policies", "session-protection", mode="enforce")
        yield enforced
        # The hub is that of other tests as well.
        enforced.patch("policies", "session-protection", mode=protection)
        assert admin.delete(f"/admin/v1/policies/{enforced.policy_id}").is_success


def rules(decision: str) -> list[dict[str, Any]]:
    """Return the rules of a policy that says one thing to everybody."""
    then: dict[str, Any] = {"decision": decision}
    then |= {"acr": "phr", "max_age": 0} if decision == "STEP_UP" else {}
    return [{"name": "everybody", "priority": 1, "when": {}, "then": then}]


@pytest.mark.requirement("FWA-31", "FWA-33", "STEP-7")
def test_row_19_behind_the_middleware_a_step_up_is_a_redirect_and_the_end_takes_the_cookie(
    enforced: Enforced,
) -> None:
    with app_process(**enforced.arguments) as app:
        own = str(app.base_url).rstrip("/")
        guard = {**enforced.guard, "origins": [own]}
        enforced.patch("apps", enforced.arguments["app_id"], forward_auth=guard)
        enforced.patch("policies", enforced.policy_id, rules=rules("STEP_UP"))
        sid, known = asked_for_more(enforced.admin, app)
        page = {**known, "accept": "text/html"}
        stopped = app.get("/notes?x=1", headers=page)
        assert stopped.status_code == 302
        where = urlsplit(stopped.headers["location"])
        assert f"{where.scheme}://{where.netloc}{where.path}" == STEP_UP
        wanted = parse_qs(where.query)
        (step_up_id,) = wanted.pop("step_up")
        assert wanted == {
            "acr_values": ["phr"],
            "max_age": ["0"],
            "return_to": [f"{own}/notes?x=1"],
        }
        program = app.post("/notes", headers=known)
        assert program.status_code == 401
        assert 'acr_values="phr", max_age="0"' in program.headers["www-authenticate"]
        assert "set-cookie" not in program.headers

        proof = {"iss": ISSUER, "outcome": "passed", "acr": "phr"}
        said = enforced.admin.post(f"/v1/sessions/{sid}/step-ups/{step_up_id}", json=proof)
        assert said.is_success, said.text
        assert app.get("/notes?x=2", headers=page).status_code == 200

        enforced.patch("policies", enforced.policy_id, rules=rules("TERMINATE"))
        answers = (app.get(f"/end/{number}", headers=known) for number in range(TRIES_MAX))
        ended = next(answer for answer in answers if answer.status_code != 200)
        assert ended.status_code == 401
        assert ended.headers["set-cookie"].startswith("sid=; Path=/; Max-Age=0; ")


def asked_for_more(admin: httpx2.Client, app: httpx2.Client) -> tuple[str, dict[str, str]]:
    """Return session and cookie of the first who is stopped: a policy takes a moment."""
    for number in range(TRIES_MAX):
        sid, cookie = f"stepped-{number}", f"{COOKIE}-stepped-{number}"
        session = {
            "iss": ISSUER,
            "user": {"format": "email", "email": f"{sid}@customer.example"},
            "cookie_sha256": hashlib.sha256(cookie.encode()).hexdigest(),
        }
        assert admin.put(f"/v1/sessions/{sid}", json=session).is_success
        known = {"cookie": f"sid={cookie}"}
        if app.get("/", headers=known).status_code != 200:
            return sid, known
    pytest.fail("nobody was stopped")


def test_without_the_hub_nobody_passes_unless_the_app_says_so() -> None:
    nowhere = {"hub": "http://127.0.0.1:9", "token": "t", "app_id": "a", "cookie": "sid"}
    with app_process(**nowhere) as closed:
        answer = closed.get("/", headers={"cookie": f"sid={COOKIE}"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
    with app_process(**nowhere, fail_open=True) as opened:
        answer = opened.get("/", headers={"cookie": f"sid={COOKIE}", "x-signalhub-user": "forged"})
        assert answer.status_code == 200
        assert answer.json()["state"] == {"user": "", "session_id": ""}
        assert "x-signalhub-user" not in answer.json()["headers"]


# --- one answer of a hub after the other, without a network --------------------------------------


class Answers:
    """A hub that answers what it was told, and remembers what it was asked."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        return httpx2.Response(self.status, headers=self.headers)

    def check(self, **options: Any) -> SessionCheck:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 299, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self))
        return SessionCheck(
            app,
            hub="https://hub.example",
            token="t",
            app_id="a",
            cookie="sid",
            client=client,
            **options,
        )


async def ask(check: SessionCheck, *, kind: str = "http", **scope: Any) -> dict[str, Any]:
    """Return the first message that a request is answered with."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.connect" if kind == "websocket" else "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {
        "type": kind,
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"cookie", f"sid={COOKIE}".encode()), (b"host", b"app.example")],
        "client": ("198.51.100.24", 50_000),
        "scheme": "https",
        **scope,
    }
    await check(asked, receive, send)
    return sent[0]


@pytest.mark.requirement("AZH-10", "FWA-42")
async def test_an_answer_is_kept_as_long_as_it_says_and_for_the_same_question_only() -> None:
    hub = Answers(200, {"x-signalhub-cache-ttl-ms": "60000"})
    check = hub.check()
    for _ in range(3):
        assert (await ask(check))["status"] == 299
    assert len(hub.asked) == 1
    for other in (
        {"client": ("203.0.113.9", 1)},
        {"path": "/admin"},
        {"method": "POST"},
        {"headers": [(b"cookie", b"sid=another-cookie-of-somebody")]},
        {"headers": [(b"cookie", f"sid={COOKIE}".encode()), (b"user-agent", b"curl")]},
    ):
        await ask(check, **other)
    assert len(hub.asked) == 6
    for number in range(CACHE_ENTRIES_MAX + 10):
        await ask(check, path=f"/{number}")
    assert len(check._known) == CACHE_ENTRIES_MAX


@pytest.mark.parametrize("ttl", ["0", "-1", "soon", "1e9", ""])
async def test_an_answer_without_a_good_time_is_not_kept(ttl: str) -> None:
    hub = Answers(200, {"x-signalhub-cache-ttl-ms": ttl})
    check = hub.check()
    await ask(check)
    await ask(check)
    assert len(hub.asked) == 2


@pytest.mark.requirement("AZ-5")
@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (200, 299),
        (204, 503),
        (302, 302),
        (401, 401),
        (403, 403),
        (404, 503),
        (500, 503),
        (503, 503),
    ],
)
async def test_only_the_hubs_own_200_lets_pass(status: int, answered: int) -> None:
    hub = Answers(status, {"server": "x", "set-cookie": "sid=; Max-Age=0", "location": "/in"})
    answer = await ask(hub.check())
    assert answer["status"] == answered
    assert b"server" not in dict(answer["headers"])


async def test_the_hub_gets_the_sessions_cookie_and_no_other() -> None:
    hub = Answers(200, {})
    cookies = f"a=b; sid={COOKIE}; xsid=secret".encode()
    await ask(
        hub.check(),
        headers=[(b"cookie", cookies), (b"authorization", b"Bearer users"), (b"x-other", b"1")],
        path="/a b",
        raw_path=b"/a%20b",
        query_string=b"c=d",
    )
    (asked,) = hub.asked
    assert asked.headers["cookie"] == f"sid={COOKIE}"
    assert asked.headers["x-signalhub-authorization"] == "Bearer t"
    assert asked.headers["x-forwarded-uri"] == "/a%20b?c=d"
    assert asked.headers["x-forwarded-for"] == "198.51.100.24"
    assert "authorization" not in asked.headers
    assert "x-other" not in asked.headers


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "http.response.start"), (401, "websocket.close")]
)
async def test_a_websocket_is_asked_about_at_its_handshake(status: int, kind: str) -> None:
    hub = Answers(status, {})
    answer = await ask(hub.check(), kind="websocket", scheme="wss")
    assert answer["type"] == kind
    assert hub.asked[0].headers["x-forwarded-proto"] == "https"
