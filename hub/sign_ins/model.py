"""What is asked of the judge of sign-ins, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from risk.behaviours.history import View
from risk.model import Level
from risk.scoring.model import Score
from risk.signins.failures import Place, place_of
from risk.signins.model import SignInQuestion
from risk.verdict import Decision, Verdict
from risk.zones.origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and who asks. reference: a stable name of the user, also of one nobody knows.

    user_ids: whom the hub knows by the names given; iss: of the session, with a sid. of_idp:
    whether it is an identity provider that asks. vouched: whether what it says of a success is
    learned from.
    """

    tenant_id: str
    client_id: str
    question: SignInQuestion
    reference: str
    user_ids: frozenset[str]
    iss: str | None = None
    of_idp: bool = False
    vouched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldHave:
    """What was held back, because policy monitors or a source is only logged."""

    decision: Decision
    level: Level
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of a question. verdict: of the policies alone, without the hub's own denials."""

    trace_id: str
    verdict: Verdict
    score: Score
    view: View
    origin: Origin
    ip_level: Level = Level.LOW
    would_have: WouldHave | None = None

    def place(self, asked: Asked) -> Place:
        """Return where failures of such sign-ins are counted."""
        return place_of(self.origin.client_ip, asked.question.device)

    @property
    def path(self) -> tuple[str, ...]:
        """How the address led to the answer, layer by layer, for people."""
        threat = "not asked, exempt" if self.origin.is_exempt else self.ip_level.name.lower()
        return (*self.origin.path, f"threat: {threat}", f"login: {self.score.level.name.lower()}")
