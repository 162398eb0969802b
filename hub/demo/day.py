"""What comes before the worst half hour: a day of travel, asked about as little as is safe.

8:00 home ─▶ 10:05 a client's office, `files` asks once ─▶ 15:30 in the air, `mail` asks nothing,
15:45 `crm` asks once. Ravi sits at his desk all day.

Policies of the day are made here, so that a world without it is as it was; its networks are in
`networks.csv`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from hub.admin.feed_import import place
from hub.demo.processes import StepFailed, until
from hub.demo.world import (
    APPS,
    IDP,
    LAPTOP,
    PHONE,
    RAVI,
    RAVI_PATEL,
    RAVIS_LAPTOP,
    TINA_SMITH,
    Person,
    World,
)
from risk.networks.library import Library
from risk.networks.service import FOLDER

STEP_S: Final = 20.0
#: what strict apps ask for: a phishing-resistant factor
ACR: Final = "phr"
AMR: Final = ("hwk", "user")
LAX_APP: Final = "mail"
STRICT_APPS: Final = ("files", "crm")
#: what a vendor's file says of the networks of the day; all of them are made for examples
FEED: Final = Path(__file__).with_name("networks.csv")


@dataclass(frozen=True, slots=True)
class Spot:
    """Somewhere to be. asn: what the feed says of the address."""

    name: str
    ip: str
    asn: int


HOME: Final = Spot("home", "192.0.2.20", 64500)
CLIENT: Final = Spot("a client's office", "198.51.100.30", 64501)
FLIGHT: Final = Spot("in-flight Wi-Fi", "203.0.113.40", 64502)
DESK: Final = Spot("his desk", "2001:db8::7", 64503)
USER_AGENTS: Final[Mapping[str, str]] = {
    LAPTOP: "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    PHONE: "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0",
    RAVIS_LAPTOP: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}
_ANY_RISK: Final = {"at_least": "MEDIUM"}
_STEP_UP: Final = {"decision": "STEP_UP", "acr": ACR, "max_age": 0}
_COOKIE: Final = re.compile(r"session=[^;]+")


def policies(app_ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the policies of the day: the session ends at HIGH, strict apps ask at any risk."""
    session = {"action": ["session"]}
    high, high_user = {"level": "HIGH", **session}, {"user_level": "HIGH", **session}
    documents: list[dict[str, Any]] = [
        {
            "type": "global_session",
            "rules": [
                _rule("high-user-logout", 10, high_user, {"decision": "TERMINATE"}),
                _rule("high-logout", 20, high, {"decision": "TERMINATE", "alert": True}),
                _rule("risky-sign-in", 30, {"level": _ANY_RISK, "action": ["sign_in"]}, _STEP_UP),
            ],
        },
        {
            "type": "app_sign_in",
            "name": "lax",
            "apps": [app_ids[LAX_APP]],
            "rules": [_rule("high-only", 10, {"level": "HIGH"}, _STEP_UP)],
        },
        {
            "type": "app_sign_in",
            "name": "strict",
            "apps": [app_ids[name] for name in STRICT_APPS],
            "rules": [
                _rule("another-network", 10, {"changes": {"include": ["asn"]}}, _STEP_UP),
                _rule("any-risk", 20, {"level": _ANY_RISK}, _STEP_UP),
            ],
        },
    ]
    return [{**document, "mode": "enforce"} for document in documents]


def _rule(
    name: str, priority: int, when: Mapping[str, object], then: Mapping[str, object]
) -> dict[str, Any]:
    return {"name": name, "priority": priority, "when": when, "then": then}


class Note(Protocol):
    """Adds a line to the timeline; `Story.note` does."""

    def __call__(self, who: str, what: str, why: str = "", *, hour: str | None = None) -> None:
        """hour: of the day, None when it is counted from a signal."""
        ...


@dataclass(frozen=True, slots=True)
class _Browser:
    """A signed-in browser: its session at the IdP and the cookie it has there."""

    sid: str
    cookie: str


@dataclass(slots=True)
class Day:
    """Plays the day in a world; afterwards everybody is signed in everywhere."""

    world: World
    note: Note
    _app_ids: dict[str, str] = field(default_factory=dict)
    _browsers: dict[str, _Browser] = field(default_factory=dict)

    async def play(self) -> None:
        """Play all of it. Raises StepFailed at the first step that does not hold."""
        await self.prepare()
        await self.at_home()
        await self.at_the_clients()
        await self.in_the_air()
        await self.at_the_desk()

    async def prepare(self) -> None:
        """Do what an admin does before: policies for apps, and a file about networks."""
        listed = await self.world.admin("GET", "/admin/v1/apps?limit=100")
        self._app_ids = {app["name"]: app["id"] for app in listed["items"]}
        for document in policies(self._app_ids):
            await self.world.admin("POST", "/admin/v1/policies:apply", document)
        feed = {"name": "examples", "file": FEED.name, "format": "csv"}
        await self.world.admin("POST", "/admin/v1/feeds", feed)
        place(FEED, Library(self.world.folder / "data" / FOLDER), FEED.name)
        await self.world.admin("POST", "/admin/v1/feeds:compile", {})
        for spot in (HOME, CLIENT, FLIGHT, DESK):
            await until(
                f"the network of {spot.name} is known", self._is_known(spot), limit_s=STEP_S
            )

    def _is_known(self, spot: Spot) -> Callable[[], Any]:
        async def is_known() -> bool:
            shown = await self.world.admin("GET", f"/v1/ip/{spot.ip}")
            return bool(shown["network"].get("asn") == spot.asn)

        return is_known

    async def at_home(self) -> None:
        """8:00, everybody signs in, and opens apps where they always are."""
        for person, spot in ((TINA_SMITH, HOME), (RAVI_PATEL, DESK)):
            for device in person.devices:
                await self._sign_in(person, device, spot)
                for name in (LAX_APP, "wiki"):
                    await self._is_let_pass(device, spot, name)
            await self._open_apps(person)
        why = f"{HOME.name}, phishing-resistant factor: ALLOW, risk LOW"
        self.note("Tina Smith", "signs in on laptop and phone", why, hour="8:00")
        self.note("Ravi Patel", f"signs in at {DESK.name}", "ALLOW, risk LOW", hour="8:00")

    async def at_the_clients(self) -> None:
        """10:05, the same laptop in another network: the strict app asks once, mail does not."""
        asked = await asyncio.gather(*(self._ask(LAPTOP, CLIENT, "files") for _ in range(2)))
        step_up = self._one_step_up(asked)
        where = f"opens files at {CLIENT.name}"
        self.note("Tina Smith", where, _why(asked[0]), hour="10:05")
        mail = await self._is_let_pass(LAPTOP, CLIENT, LAX_APP, risk="MEDIUM")
        self.note("Tina Smith", "reads mail there, is asked nothing", _why(mail), hour="10:05")
        await self._step_up(LAPTOP, step_up)
        files = await self._is_let_pass(LAPTOP, CLIENT, "files")
        self.note("Tina Smith", "confirms at the IdP, has files", _why(files), hour="10:06")
        for name in ("files", LAX_APP, "crm"):
            await self._is_let_pass(LAPTOP, CLIENT, name)
        await self._has_stepped_up(LAPTOP, 1)
        why = "the office is known now, for every app"
        self.note("Tina Smith", "works on, is not asked again", why, hour="10:10")

    async def in_the_air(self) -> None:
        """15:30, the phone in yet another network: mail as ever, crm asks once."""
        mail = await self._is_let_pass(PHONE, FLIGHT, LAX_APP, risk="MEDIUM")
        self.note("Tina Smith", f"reads mail by {FLIGHT.name}", _why(mail), hour="15:30")
        asked = await self._ask(PHONE, FLIGHT, "crm")
        step_up = self._one_step_up([asked])
        self.note("Tina Smith", "opens crm on the phone", _why(asked), hour="15:45")
        await self._step_up(PHONE, step_up)
        crm = await self._is_let_pass(PHONE, FLIGHT, "crm")
        self.note("Tina Smith", "confirms at the IdP, has crm", _why(crm), hour="15:46")
        await self._is_let_pass(PHONE, FLIGHT, LAX_APP)
        await self._has_stepped_up(PHONE, 1)

    async def at_the_desk(self) -> None:
        """16:00, Ravi opened every app and was asked nothing."""
        for name in APPS:
            await self._is_let_pass(RAVIS_LAPTOP, DESK, name)
        await self._has_stepped_up(RAVIS_LAPTOP, 0)
        risk = await self.world.risk(RAVI)
        _check(risk["riskLevel"] == "LOW", f"Ravi is at LOW, not {risk['riskLevel']}")
        self.note("Ravi Patel", "used every app, was asked nothing", "no change", hour="16:00")

    # What people do, and what the hub is asked about it.

    async def _sign_in(self, person: Person, device: str, spot: Spot) -> None:
        """Sign in at the IdP's page; the IdP then tells the hub from where and with what."""
        http, idp = self.world.http, self.world.idp
        page = await http.submit(idp.urls["sign_in_url"], {"user": person.email, "device": device})
        cookie = _COOKIE.match(page.headers.get("set-cookie", ""))
        _check(cookie is not None, f"{person.label} is signed in: {page.status}")
        (session,) = await http.ask(
            "GET", f"{idp.url}/sessions?user={person.email}&device={device}"
        )
        self._browsers[device] = _Browser(session["sid"], cookie[0] if cookie else "")
        self.world.sessions[IDP, person.email, device] = session["sid"]
        decided = await http.ask(
            "POST",
            f"{self.world.hub.issuer}/v1/sign-ins/evaluate",
            {
                "user": {"format": "email", "email": person.email},
                "ip": spot.ip,
                "user_agent": USER_AGENTS[device],
                "device": _device(device),
                "phase": "after",
                "outcome": "success",
                "amr": AMR,
                "acr": ACR,
                "sid": session["sid"],
            },
            token=self.world.idp_token,
        )
        shown = (decided["decision"], decided["login_risk"]["level"])
        _check(shown == ("ALLOW", "LOW"), f"{person.label} signs in from {spot.name}: {shown}")

    async def _open_apps(self, person: Person) -> None:
        for name in APPS:
            for device in person.devices:
                await self.world.open_session(name, person.email, device)

    async def _ask(self, device: str, spot: Spot, app: str) -> Any:
        """Return what the hub answers about a request of the device's session for an app."""
        url = f"{self.world.hub.issuer}/v1/sessions/{self._browsers[device].sid}/evaluate"
        body = {
            "ip": spot.ip,
            "ua": USER_AGENTS[device],
            "device": _device(device),
            "app_id": self._app_ids[app],
        }
        return await self.world.http.ask("POST", url, body, token=self.world.idp_token)

    async def _is_let_pass(self, device: str, spot: Spot, app: str, *, risk: str = "LOW") -> Any:
        answer = await self._ask(device, spot, app)
        shown = (answer["decision"], answer["risk"]["level"])
        _check(shown == ("ALLOW", risk), f"{app} at {spot.name} allows at {risk}: {shown}")
        return answer

    def _one_step_up(self, answers: list[Any]) -> Mapping[str, Any]:
        """Return the one step-up that all answers ask for."""
        for answer in answers:
            shown = (answer["decision"], answer["scope"], answer.get("acr"), answer.get("max_age"))
            _check(shown == ("STEP_UP", "app", ACR, 0), f"the app asks for a step-up: {shown}")
            _check("asn" in answer["changed"]["classes"], "another network was noticed")
        ids = {answer["step_up"]["id"] for answer in answers}
        first = [answer for answer in answers if answer["step_up"]["new"]]
        _check(len(ids) == len(first) == 1, f"{len(answers)} requests are one step-up: {ids}")
        return {"step_up": first[0]["step_up"]["id"], "acr_values": first[0]["acr"], "max_age": "0"}

    async def _step_up(self, device: str, asked: Mapping[str, Any]) -> None:
        """Confirm at the IdP's page, in the browser that is signed in there."""
        page = await self.world.http.submit(
            self.world.idp.urls["step_up_url"],
            {**asked, "outcome": "passed"},
            cookie=self._browsers[device].cookie,
        )
        _check(page.status == 200, f"the IdP took the step-up: {page.status}")  # noqa: PLR2004

    async def _has_stepped_up(self, device: str, times: int) -> None:
        ended = await self.world.ledger(IDP, what="step_up.ended")
        sid = self._browsers[device].sid
        count = sum(entry["sid"] == sid for entry in ended)
        _check(count == times, f"{device} stepped up {times} times, not {count}")


def _device(device: str) -> dict[str, str]:
    return {"id": device, "token_hash": f"cookie-of-{device}".lower()}


def _why(answer: Any) -> str:
    """Say in one line what was decided, by which rule, and what had changed."""
    decision, changed = answer["decision"], answer.get("changed")
    by = [
        f"by {each['policy']}/{each['rule']}"
        for each in answer.get("violations", ())
        if each["enforced"] and each["decision"] == decision != "ALLOW"
    ]
    parts = [" ".join([decision, *by[:1]]), f"risk {answer['risk']['level']}"]
    if changed:
        names = [name for name in changed["classes"] if name in changed["old"]]
        parts += [f"{name} {changed['old'][name]} → {changed['new'][name]}" for name in names]
    return "; ".join(parts)


def _check(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise StepFailed(f"not true: {what}")
