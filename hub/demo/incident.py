"""One person's bad half hour, in steps that hold whatever happens to the hub meanwhile.

    sign_in ─▶ report_compromised ─▶ contained ─▶ report_clean ─▶ restored ─▶ sign_in_again

Every step waits for what has to become true, by the peers' own account; the hub may be killed and
started anew at any moment. What must *not* have happened is for `hub.demo.judge` to say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hub.demo.processes import StepFailed, until
from hub.demo.world import PLACES, QUARANTINE, Person, World

#: ten times what the slowest recovery takes; a step that needs longer has failed
STEP_S: Final = 90.0
ACCEPTED: Final = 202
FORBIDDEN: Final = 403
OK: Final = 200


class Phase(StrEnum):
    """How far an incident has come."""

    SIGNED_IN = "signed in"
    COMPROMISED = "compromised"
    CONTAINED = "contained"
    CLEAN = "clean"
    RESTORED = "restored"


@dataclass(slots=True)
class Incident:
    """One containment of one person, from the vendor's word to the restored access."""

    world: World
    person: Person
    phase: Phase = Phase.SIGNED_IN
    #: when each phase was reached, by the monotonic clock
    reached: dict[Phase, float] = field(default_factory=dict)
    #: by place, the sessions that had to end, and those that came after and had to live
    doomed: dict[str, set[str]] = field(default_factory=dict)
    later: dict[str, set[str]] = field(default_factory=dict)
    #: by peer, the number of the last ledger entry before the incident
    marks: dict[str, int] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """The name of the person at every peer."""
        return self.person.email

    async def play(self) -> None:
        """Play all of it. Raises StepFailed."""
        await self.sign_in()
        await self.report_compromised()
        await self.contained()
        await self.report_clean()
        await self.restored()
        await self.sign_in_again()

    async def sign_in(self) -> None:
        """Open sessions everywhere, on all devices."""
        await self.world.sign_in(self.person)
        await self.note_sessions()

    async def note_sessions(self) -> None:
        """Note which sessions have to end: all that live now."""
        for name in (*PLACES, "webhook"):
            entries = await self.world.ledger(name)
            self.marks[name] = entries[-1]["number"] if entries else 0
        self.doomed = {place: await self._live(place) for place in PLACES}

    async def report_compromised(self, **order: Any) -> Any:
        """Let the vendor report the person's first device; return what the vendor saw."""
        sent = await self._report("not-compliant", order)
        self._reach(Phase.COMPROMISED)
        return sent

    async def contained(self) -> None:
        """Wait until the person is in quarantine and logged out everywhere, and cannot return."""
        await until(f"{self.user} is HIGH", self.is_at("HIGH"), limit_s=STEP_S)
        await until(f"{self.user} is in quarantine", self.is_quarantined, limit_s=STEP_S)
        for place in PLACES:
            await self.logged_out(place)
        reply = await self.world.http.request(
            "POST", f"{self.world.idp.url}/login", {"user": self.user}
        )
        if reply.status != FORBIDDEN:
            raise StepFailed(f"{self.user} may sign in while in quarantine: {reply.status}")
        self._reach(Phase.CONTAINED)

    async def logged_out(self, place: str) -> None:
        """Wait until no session that had to end is left at a place. Raises StepFailed."""

        async def is_logged_out() -> bool:
            return not self.doomed[place] & await self._live(place)

        await until(f"{self.user} is logged out of {place}", is_logged_out, limit_s=STEP_S)

    async def report_clean(self, **order: Any) -> Any:
        """Let the vendor report that the device is compliant again."""
        sent = await self._report("compliant", order)
        self._reach(Phase.CLEAN)
        return sent

    async def restored(self) -> None:
        """Wait until everything is undone and the containment closed."""
        await until(f"{self.user} is LOW", self.is_at("LOW"), limit_s=STEP_S)
        await until(f"{self.user} is out of quarantine", self._is_free, limit_s=STEP_S)
        await until(f"the containment of {self.user} closes", self._is_closed, limit_s=STEP_S)
        await until(f"people are told about {self.user}", self._is_told, limit_s=STEP_S)
        self._reach(Phase.RESTORED)

    async def sign_in_again(self) -> None:
        """Sign in everywhere the ordinary way; a request that comes too late would end these."""
        for place in PLACES:
            await until(
                f"{self.user} can sign in at {place}", self._can_sign_in(place), limit_s=STEP_S
            )
        self.later = {place: await self._live(place) for place in PLACES}

    def _can_sign_in(self, place: str) -> Any:
        url = f"{self.world.peer(place).url}/login"
        body = {"user": self.user, "device": self.person.devices[0]}

        async def can_sign_in() -> bool:
            return (await self.world.http.request("POST", url, body)).status == OK

        return can_sign_in

    def _reach(self, phase: Phase) -> None:
        self.phase = phase
        self.reached[phase] = time.monotonic()

    def is_at(self, level: str) -> Any:
        """Return a condition: the hub says that the person is at this level."""

        async def is_at_level() -> bool:
            return bool((await self.world.risk(self.user))["riskLevel"] == level)

        return is_at_level

    async def is_quarantined(self) -> bool:
        """Return whether the person is in the quarantine group."""
        return self.user in await self.world.members(QUARANTINE)

    async def _report(self, status: str, order: dict[str, Any]) -> Any:
        """Send in CAEP's final form. The vendor repeats until the hub takes it."""
        previous = "compliant" if status == "not-compliant" else "not-compliant"
        whole: dict[str, Any] = {
            "shape": "device-compliance-change",
            "user": {"format": "email", "email": self.user},
            "device": {"format": "opaque", "id": self.person.devices[0]},
            "previous_status": previous,
            "status": status,
            "wait_s": STEP_S,
            **order,
        }
        sent = await self.world.emit(**whole)
        if order.get("wait", True) and sent["status"] != ACCEPTED:
            raise StepFailed(f"the hub did not take the SET: {sent}")
        return sent

    async def _live(self, place: str) -> set[str]:
        url = f"{self.world.peer(place).url}/sessions?user={self.user}"
        return {session["sid"] for session in await self.world.http.ask("GET", url)}

    async def _is_free(self) -> bool:
        return not await self.is_quarantined()

    async def _is_closed(self) -> bool:
        found = await self.world.containments(self.user)
        return bool(found) and all(each["state"] == "closed" for each in found)

    async def _is_told(self) -> bool:
        """Return whether the webhook has got the end of this incident."""
        told = await self.world.ledger(
            "webhook",
            what="webhook.received",
            type="containment.closed",
            after=self.marks["webhook"],
        )
        return any(each["data"]["label"] == self.person.label for each in told)
