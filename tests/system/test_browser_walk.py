"""A person with a real browser, a real nginx, and the step-up page of the identity provider.

Rows 11, 15 and 19 of the mission table.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.hub.commands import LIMIT_S, ROOT, Forker, Shell, served
from tests.system.browser import Browser, Tab, chromium
from tests.system.gateways import Places, nginx
from tests.system.guarded import GuardedHub, echo_app, guarded
from tests.system.network import Network, network

HOME = "198.51.100.7"
OFFICE = "203.0.113.9"
ELSEWHERE = "192.0.2.66"
COOKIE = "session"
ROSA = "rosa@customer.example"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"


@dataclass
class Day:
    """Everything Rosa's day takes place in."""

    known: GuardedHub
    idp: dict[str, Any]
    way: Network

    @property
    def app(self) -> str:
        return self.way.url

    def ledger(self, kind: str) -> list[dict[str, Any]]:
        """Return what the identity provider saw of a kind."""
        entries: list[dict[str, Any]] = httpx2.get(
            self.idp["ledger_url"], params={"what": kind}, timeout=LIMIT_S
        ).json()
        return entries


@contextmanager
def identity_provider(**options: Any) -> Iterator[dict[str, Any]]:
    """Run the simulated identity provider."""
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance.peers", "idp", "--config", json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    """Set the scene: hub, IdP, nginx with the guide's own configuration, an app behind it."""
    with ExitStack() as stack:
        forker = Forker()
        stack.callback(forker.close)
        (tmp_path / "hub").mkdir()
        hub = stack.enter_context(served(Shell(folder=tmp_path / "hub", forker=forker)))
        way = stack.enter_context(network())
        people = [{"id": "rosa", "user_name": ROSA, "email": ROSA}]
        idp = stack.enter_context(identity_provider(users=people, return_origins=[way.url]))
        known = stack.enter_context(guarded(hub, issuer=idp["issuer"]))
        told = {"hub": hub.issuer, "hub_token": known.idp_token}
        httpx2.post(f"{idp['base_url']}/control/configure", json=told, timeout=LIMIT_S)
        preset = {"name": "standard", "mode": "enforce"}
        assert known.admin.post("/admin/v1/policies:preset", json=preset).is_success
        urls = {name: idp[name] for name in ("sign_in_url", "step_up_url", "sign_out_url")}
        known.guard(cookies=[COOKIE], origins=[way.url], tells_user=True, **urls)
        app = stack.enter_context(echo_app())
        (tmp_path / "nginx").mkdir()
        places = Places(hub=hub.issuer, app=app, app_id=known.app_id, token=known.token)
        # The way is a proxy of the gateway's own: nginx believes its X-Forwarded-For.
        url = stack.enter_context(nginx(tmp_path / "nginx", places, behind="127.0.0.1"))
        way.gateway = urlsplit(url).netloc
        yield Day(known=known, idp=idp, way=way)


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    (folder / "browser").mkdir()
    async with asyncio.timeout(300), chromium(folder / "browser") as browser:
        yield browser


async def sign_in(tab: Tab, day: Day) -> None:
    """Go to the app without a session, sign in where that leads, and come back."""
    await tab.open(f"{day.app}/accounts?id=7")
    assert urlsplit(await tab.url()).path == "/sign-in"
    await tab.run(f"document.querySelector('input[name=user]').value = {ROSA!r}")
    await tab.click("#go")
    assert await tab.url() == f"{day.app}/accounts?id=7"


@pytest.mark.requirement("STEP-3", "STEP-7", "FWA-31")
async def test_row_11_a_new_network_asks_once_and_is_quiet_afterwards(
    day: Day, tmp_path: Path
) -> None:
    async with browsing(tmp_path) as browser:
        rosa = await browser.new_person()
        await sign_in(rosa, day)
        assert "x-signalhub-user" in await rosa.text()
        assert await rosa.statuses("/at-home", 10) == [200] * 10

        day.way.address = OFFICE
        assert await rosa.statuses("/at-work", 10) == [401] * 10
        await rosa.open(f"{day.app}/accounts?id=8")
        where = urlsplit(await rosa.url())
        assert where.path == "/step-up"
        asked = parse_qs(where.query)
        assert asked["max_age"] == ["0"]
        assert asked["return_to"] == [f"{day.app}/accounts?id=8"]
        await rosa.click("#confirm")
        assert await rosa.url() == f"{day.app}/accounts?id=8"

        # One step-up, whatever was asked in parallel; from now on the office is known.
        assert await rosa.statuses("/at-work", 10) == [200] * 10
        assert len(day.ledger("step_up.ended")) == 1
        day.way.address = HOME
        assert await rosa.statuses("/at-home-again") == [200]


async def test_row_11_refusing_the_prompt_ends_the_session(day: Day, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        rosa = await browser.new_person()
        await sign_in(rosa, day)
        await rosa.statuses("/at-home")
        day.way.address = OFFICE
        await rosa.open(f"{day.app}/accounts")
        await rosa.click("#refuse")
        # Back at the app the session is over: its cookie is taken, and she is signed out.
        assert "Signed out" in await rosa.text()
        assert await rosa.cookie(COOKIE) is None
        day.way.address = HOME
        await rosa.open(f"{day.app}/accounts")
        assert urlsplit(await rosa.url()).path == "/sign-in"


async def test_row_15_a_stolen_cookie_is_stopped_at_once_and_its_owner_goes_on(
    day: Day, tmp_path: Path
) -> None:
    async with browsing(tmp_path) as browser:
        rosa, thief = await browser.new_person(), await browser.new_person()
        await sign_in(rosa, day)
        assert await rosa.statuses("/at-home") == [200]
        stolen = await rosa.cookie(COOKIE)

        day.way.address = ELSEWHERE
        await thief.call("Network.setUserAgentOverride", userAgent=FIREFOX)
        jar = [{"name": COOKIE, "value": stolen, "url": day.app}]
        await browser.call("Storage.setCookies", cookies=jar, browserContextId=thief.context)
        await thief.open(f"{day.app}/accounts?id=7")
        assert not (await thief.url()).startswith(day.app)

        # The owner's session is not over. Her risk rose, so she is asked once whether it is she.
        day.way.address = HOME
        async with asyncio.timeout(LIMIT_S):
            while await rosa.statuses("/at-home") == [200]:  # noqa: ASYNC110 - asking is the point
                await asyncio.sleep(0)
        await rosa.open(f"{day.app}/accounts?id=7")
        assert urlsplit(await rosa.url()).path == "/step-up"
        await rosa.click("#confirm")
        assert await rosa.url() == f"{day.app}/accounts?id=7"
        assert await rosa.statuses("/still-at-home", 5) == [200] * 5
        assert await rosa.cookie(COOKIE) == stolen


@contextmanager
def strict_app(day: Day, folder: Path) -> Iterator[str]:
    """Put a second app, with a strict policy of its own, behind a second nginx; yield its place.

    For the browser both are one origin: it is the way that leads to one or the other.
    """
    admin = day.known.admin
    urls = {name: day.idp[name] for name in ("sign_in_url", "step_up_url", "sign_out_url")}
    guard = {"cookies": [COOKIE], "origins": [day.way.url], **urls}
    bank = admin.post("/admin/v1/apps", json={"name": "bank", "forward_auth": guard}).json()["id"]
    lax = {"name": "global-session", "mode": "enforce", "rules": []}
    assert admin.put("/admin/v1/policies/global-session", json=lax).is_success
    asks = {
        "name": "asks",
        "priority": 1,
        "when": {"level": {"at_least": "MEDIUM"}},
        "then": {"decision": "STEP_UP", "max_age": 0},
    }
    strict = {"name": "strict", "apps": [bank], "mode": "enforce", "rules": [asks]}
    assert admin.post("/admin/v1/policies", json=strict).is_success
    with echo_app() as app:
        folder.mkdir()
        places = Places(hub=day.known.hub.issuer, app=app, app_id=bank, token=day.known.token)
        with nginx(folder, places, behind="127.0.0.1") as url:
            yield urlsplit(url).netloc


async def test_row_12_a_lax_app_passes_and_a_strict_app_prompts(day: Day, tmp_path: Path) -> None:
    with strict_app(day, tmp_path / "bank") as bank:
        mail = day.way.gateway
        async with browsing(tmp_path) as browser:
            rosa = await browser.new_person()
            await sign_in(rosa, day)
            assert await rosa.statuses("/mail", 2) == [200] * 2
            day.way.gateway = bank
            assert await rosa.statuses("/accounts", 2) == [200] * 2

            day.way.address = OFFICE
            day.way.gateway = mail
            assert await rosa.statuses("/mail", 5) == [200] * 5
            day.way.gateway = bank
            await rosa.open(f"{day.app}/accounts?id=8")
            assert urlsplit(await rosa.url()).path == "/step-up"
            await rosa.click("#confirm")
            assert await rosa.url() == f"{day.app}/accounts?id=8"
            assert await rosa.statuses("/accounts", 5) == [200] * 5
            day.way.gateway = mail
            assert await rosa.statuses("/mail", 5) == [200] * 5
            assert len(day.ledger("step_up.ended")) == 1


@pytest.mark.requirement("FWA-33")
async def test_row_19_signed_out_is_401_and_the_cookie_is_gone(day: Day, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        rosa = await browser.new_person()
        await sign_in(rosa, day)
        assert await rosa.statuses("/at-home") == [200]
        value = await rosa.cookie(COOKIE)
        assert value

        # Signed out elsewhere: this browser still has its cookie, and learns of it here.
        sid = day.ledger("session.opened")[-1]["sid"]
        day.known.sign_out(sid)
        assert await rosa.statuses("/at-home") == [401]
        assert await rosa.cookie(COOKIE) is None
        await rosa.open(f"{day.app}/accounts")
        assert urlsplit(await rosa.url()).path == "/sign-in"
