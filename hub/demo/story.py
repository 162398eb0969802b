"""What happens in the demo, and what has to be true after each step.

Compromised device -> HIGH -> quarantined -> all sessions gone, bystander untouched, re-login
denied -> device clean -> restored, and everybody told. There are two causes, on two devices: one
clean device restores nobody whose other device is bad. They come in the two shapes that real
products send: a vendor-private event with its old-style subject, and final CAEP.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hub.demo.processes import StepFailed, until
from hub.demo.world import (
    APPS,
    IDP,
    LAPTOP,
    PHONE,
    PLACES,
    QUARANTINE,
    RAVI,
    RAVI_PATEL,
    SALES,
    TINA,
    TINA_SMITH,
    World,
)

#: generous: a step that takes this long has failed, it is not slow
STEP_S: Final = 20.0
REFUSED: Final = frozenset({401, 403})
LAPTOP_SUBJECT: Final = {"format": "opaque", "id": LAPTOP}
PHONE_SUBJECT: Final = {"format": "opaque", "id": PHONE}
TINA_SUBJECT: Final = {"format": "email", "email": TINA}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line of the timeline. since_signal_ms: None before the first signal; hour: of the day."""

    who: str
    what: str
    why: str
    since_signal_ms: float | None
    hour: str | None = None


@dataclass(slots=True)
class Story:
    """Plays the story in a world and keeps the timeline."""

    world: World
    tell: Callable[[Moment], None]
    timeline: list[Moment] = field(default_factory=list)
    _signal_at: float | None = None

    def note(self, who: str, what: str, why: str = "", *, hour: str | None = None) -> None:
        """Add a line to the timeline. hour: told instead of the time since the signal."""
        since = None if self._signal_at is None else (time.monotonic() - self._signal_at) * 1000
        moment = Moment(who=who, what=what, why=why, since_signal_ms=since, hour=hour)
        self.timeline.append(moment)
        self.tell(moment)

    async def play(self) -> None:
        """Play all of it. Raises StepFailed at the first step that does not hold."""
        for person in (TINA_SMITH, RAVI_PATEL):
            await self.world.sign_in(person)
        await self.evening()

    async def evening(self) -> None:
        """Play it with people who are signed in already. Raises StepFailed."""
        await self.all_signed_in()
        await self.device_compromised()
        await self.contained()
        await self.second_cause()
        await self.first_cause_cleared()
        await self.device_clean()
        await self.restored()

    async def all_signed_in(self) -> None:
        """Everybody is signed in everywhere."""
        for where in PLACES:
            await self._expect_alive(where, TINA, 2)
            await self._expect_alive(where, RAVI, 1)
        risk = await self.world.risk(TINA)
        _check(risk["riskLevel"] == "LOW", f"Tina starts at LOW, not {risk['riskLevel']}")
        self.note("Tina Smith", "is signed in on laptop and phone", "IdP and four apps")
        self.note("Ravi Patel", "is signed in on his laptop", "a bystander")

    async def device_compromised(self) -> None:
        """The MDM finds malware on Tina's laptop and says so in its own words."""
        self._signal_at = time.monotonic()
        sent = await self.world.emit(
            shape="device-risk-change",
            user=TINA_SUBJECT,
            device=LAPTOP_SUBJECT,
            previous_level="low",
            level="high",
            reason="Infostealer found",
        )
        _check(sent["status"] == 202, f"the hub took the SET: {sent}")  # noqa: PLR2004
        self.note("Example MDM", f"reports {LAPTOP} at risk high", "Infostealer found")
        await until("Tina's risk is HIGH", self._risk_is("HIGH"), limit_s=STEP_S)
        risk = await self.world.risk(TINA)
        self.note("Signalhub", "raises Tina's risk to HIGH", str(risk["riskReason"]))
        await until("the hub denies Tina", self._decision_is("DENY"), limit_s=STEP_S)
        _check(await self.world.decision(RAVI) == "ALLOW", "the hub allows Ravi")
        self.note("Signalhub", "answers DENY for Tina and ALLOW for Ravi", "asked by an IdP")

    async def contained(self) -> None:
        """Quarantined first, then logged out everywhere; nobody else is touched."""
        await until("Tina is in quarantine", self._in_quarantine, limit_s=STEP_S)
        self.note("IdP", f"has Tina in {QUARANTINE}", "SCIM, by Signalhub")
        for where in PLACES:
            await until(f"Tina has no session at {where}", self._signed_out(where), limit_s=STEP_S)
            how = "Global Token Revocation" if where == IDP else LOGOUT_NAMES[APPS[where]]
            self.note(where, "has ended both of Tina's sessions", how)
        for where in PLACES:
            await self._expect_alive(where, RAVI, 1)
        self.note("Ravi Patel", "is still signed in everywhere", "not his device")
        await self._old_sessions_are_refused()
        await self._signing_in_is(allowed=False)
        self.note("Tina Smith", "cannot sign in again", "quarantined")
        message = await self._message("containment.opened")
        self.note("SecOps", "is told", message)

    async def second_cause(self) -> None:
        """Her phone is reported not compliant, in final CAEP: it joins the containment."""
        await self._compliance("compliant", "not-compliant")
        self.note("Example MDM", f"reports {PHONE} not compliant", "CAEP device-compliance-change")

        async def has_two_causes() -> bool:
            return len((await self._containment())["causes"]) == 2  # noqa: PLR2004

        await until("the containment has two causes", has_two_causes, limit_s=STEP_S)
        self.note("Signalhub", "adds the cause to the open containment", "one per person")

    async def first_cause_cleared(self) -> None:
        """The laptop is clean, but the phone is still not compliant: nothing is undone."""
        await self.world.emit(
            shape="device-risk-change",
            user=TINA_SUBJECT,
            device=LAPTOP_SUBJECT,
            previous_level="high",
            level="low",
            reason="Infostealer removed",
        )

        async def one_is_cleared() -> bool:
            causes = (await self._containment())["causes"]
            return sum(cause["cleared_at"] is not None for cause in causes) == 1

        await until("one of two causes is cleared", one_is_cleared, limit_s=STEP_S)
        _check((await self._containment())["state"] == "open", "the containment stays open")
        _check(TINA in await self.world.members(QUARANTINE), "Tina stays in quarantine")
        self.note("Signalhub", "keeps Tina contained", "her phone is still not compliant")

    async def device_clean(self) -> None:
        """The phone is compliant again: the last cause is gone."""
        self._signal_at = time.monotonic()
        await self._compliance("not-compliant", "compliant")
        self.note("Example MDM", f"reports {PHONE} compliant", "remediated")

    async def restored(self) -> None:
        """Everything we did is undone, nothing else; everybody is told."""
        await until("Tina's risk is LOW", self._risk_is("LOW"), limit_s=STEP_S)
        self.note("Signalhub", "lowers Tina's risk to LOW", "all causes cleared")

        async def is_out() -> bool:
            return TINA not in await self.world.members(QUARANTINE)

        await until("Tina has left quarantine", is_out, limit_s=STEP_S)
        _check(await self.world.members(SALES) == [TINA], "her other groups are as they were")
        self.note("IdP", f"has Tina out of {QUARANTINE}", "her other groups untouched")
        await until("the hub allows Tina", self._decision_is("ALLOW"), limit_s=STEP_S)
        await self._signing_in_is(allowed=True)
        self.note("Tina Smith", "can sign in again", "access restored")
        message = await self._message("containment.closed")
        self.note("Tina Smith", "is told what happened", message)

        async def is_closed() -> bool:
            return bool((await self._containment())["state"] == "closed")

        await until("the containment is closed", is_closed, limit_s=STEP_S)
        self.note("Signalhub", "closes the containment", "undo complete")

    async def _compliance(self, previous: str, current: str) -> None:
        sent = await self.world.emit(
            shape="device-compliance-change",
            user=TINA_SUBJECT,
            device=PHONE_SUBJECT,
            previous_status=previous,
            status=current,
        )
        _check(sent["status"] == 202, f"the hub took the SET: {sent}")  # noqa: PLR2004

    def _risk_is(self, level: str) -> Any:
        async def is_level() -> bool:
            return bool((await self.world.risk(TINA))["riskLevel"] == level)

        return is_level

    def _decision_is(self, decision: str) -> Any:
        async def is_decision() -> bool:
            return await self.world.decision(TINA) == decision

        return is_decision

    async def _in_quarantine(self) -> bool:
        return TINA in await self.world.members(QUARANTINE)

    def _signed_out(self, where: str) -> Any:
        async def is_signed_out() -> bool:
            return await self.world.alive(where, TINA) == 0

        return is_signed_out

    async def _expect_alive(self, where: str, user: str, count: int) -> None:
        alive = await self.world.alive(where, user)
        _check(alive == count, f"{user} has {count} live sessions at {where}, not {alive}")

    async def _old_sessions_are_refused(self) -> None:
        for name, peer in self.world.apps.items():
            for device in (LAPTOP, PHONE):
                session = self.world.sessions[name, TINA, device]
                reply = await self.world.http.request(
                    "POST", f"{peer.url}/access", {"session": session}
                )
                _check(reply.status in REFUSED, f"{name} refuses the old session on {device}")

    async def _signing_in_is(self, *, allowed: bool) -> None:
        for name, url in self._login_urls():
            reply = await self.world.http.request("POST", url, {"user": TINA, "device": PHONE})
            _check(
                (reply.status not in REFUSED) == allowed,
                f"signing in at {name} is {'allowed' if allowed else 'denied'}: {reply.status}",
            )

    def _login_urls(self) -> list[tuple[str, str]]:
        apps = [(name, f"{peer.url}/login") for name, peer in self.world.apps.items()]
        return [(IDP, f"{self.world.idp.url}/login"), *apps]

    async def _containment(self) -> Any:
        listed = await self.world.containments(TINA)
        _check(len(listed) == 1, "there is one containment")
        return await self.world.admin("GET", f"/admin/v1/containments/{listed[0]['id']}")

    async def _message(self, kind: str) -> str:
        found: list[str] = []

        async def has_come() -> bool:
            messages = await self.world.http.ask("GET", f"{self.world.webhook.url}/messages")
            bodies = [message["body"] for message in messages]
            found[:] = [
                body["data"].get("user_message" if kind.endswith("closed") else "message", "")
                for body in bodies
                if body["type"] == kind and body["data"]["user_id"] == self.world.user_ids[TINA]
            ]
            return bool(found)

        await until(f"the webhook has got {kind}", has_come, limit_s=STEP_S)
        return found[0]


LOGOUT_NAMES: Final = {
    "gtr": "Global Token Revocation",
    "bcl": "OIDC Back-Channel Logout",
    "push": "CAEP session-revoked, pushed",
    "poll": "CAEP session-revoked, polled",
}


def _check(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise StepFailed(f"not true: {what}")
