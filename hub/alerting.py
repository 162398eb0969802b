"""People are told when a rule of a policy says so: once per session or user, rule and hour.

    verdict with alerts ─▶ Alerts (not told this hour?) ─▶ TELL_ALERT ─▶ notifications, as tasks

No request to anybody leaves from here: delivery sends what is enqueued.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.notices
from actions.messages import Event
from risk.verdict import Verdict, Violation
from runtime.clock import epoch_s
from runtime.writer import Operation, Writer

#: one alert per rule and whom it is about in this time
QUIET_S: Final = 3_600
#: alerts that this process remembers to have told; the database knows of all
TOLD_MAX: Final = 10_000
#: of one decision; a session has at most a handful of policies
ALERTS_MAX: Final = 16
REASONS_MAX: Final = 20
TEXT_CHARS_MAX: Final = 200

log = structlog.get_logger()
_alerts_total = Counter(
    "hub_policy_alerts_total", "Alerts that rules of policies asked for, by kind.", ["of"]
)


class PolicyAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert; item of the operation TELL_ALERT. of: `session` or `sign_in`.

    notice_id: the same for everything that is told once. session_id, user_id: "" where unknown.
    """

    tenant_id: str
    notice_id: str
    of: str
    session_id: str
    user_id: str
    policy: str
    policy_id: str
    rule: str
    decision: str
    why: str
    reasons: tuple[str, ...]
    trace_id: str
    at: datetime


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision was about. key: of what is told once per hour. app_id: asked for, or ""."""

    tenant_id: str
    of: str
    key: str
    session_id: str = ""
    user_id: str = ""
    app_id: str = ""
    trace_id: str = ""
    at: datetime


class Alerts:
    """Finds what of a verdict people are to be told, for one process."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, None] = OrderedDict()

    def found(self, verdict: Verdict, about: About) -> list[PolicyAlert]:
        """Return the alerts of a verdict that were not told this hour, and log what is to be.

        What fails at other apps of the session is told when these are asked for. Raises nothing.
        """
        if verdict.logs:
            log.info(
                "policy_rule.logged",
                of=about.of,
                tenant_id=about.tenant_id,
                session_id=about.session_id,
                user_id=about.user_id,
                rule=verdict.logs,
                decision=verdict.decision.name,
                reasons=verdict.reasons,
                trace_id=about.trace_id,
            )
        if not verdict.alerts:
            return []
        fresh = []
        for violation in verdict.violations[:ALERTS_MAX]:
            is_here = not violation.app_ids or about.app_id in violation.app_ids
            if not (violation.alerts and violation.is_enforced and is_here):
                continue
            alert = _alert(violation, verdict, about)
            if alert.notice_id not in self._told:
                self._note(alert)
                fresh.append(alert)
        return fresh

    async def tell(self, found: Sequence[PolicyAlert], writer: Writer) -> None:
        """Have people told; return after the commit. Raises as the writer does.

        Then it is found again: what was written all the same is told once nevertheless.
        """
        try:
            for alert in found:
                await writer.submit(TELL_ALERT, alert)
        except BaseException:
            for alert in found:
                self.untold(alert)
            raise

    def untold(self, alert: PolicyAlert) -> None:
        """Forget that an alert was told, because it could not be written. Raises nothing."""
        self._told.pop(alert.notice_id, None)

    def _note(self, alert: PolicyAlert) -> None:
        self._told[alert.notice_id] = None
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)
        _alerts_total.labels(alert.of).inc()
        log.warning(
            "policy_rule.alerted",
            of=alert.of,
            tenant_id=alert.tenant_id,
            session_id=alert.session_id,
            user_id=alert.user_id,
            policy=alert.policy_id,
            rule=alert.rule,
            decision=alert.decision,
            trace_id=alert.trace_id,
        )


def _alert(violation: Violation, verdict: Verdict, about: About) -> PolicyAlert:
    hour = epoch_s(about.at) // QUIET_S
    named = "\0".join((about.of, about.key, violation.policy_id, violation.rule, str(hour)))
    digest = hashlib.blake2b(named.encode(), digest_size=16).hexdigest()
    return PolicyAlert(
        tenant_id=about.tenant_id,
        notice_id=f"pal_{digest}",
        of=about.of,
        session_id=about.session_id,
        user_id=about.user_id,
        policy=violation.policy[:TEXT_CHARS_MAX],
        policy_id=violation.policy_id,
        rule=violation.rule[:TEXT_CHARS_MAX],
        decision=violation.decision.name,
        why=violation.why[:TEXT_CHARS_MAX],
        reasons=tuple(each[:TEXT_CHARS_MAX] for each in verdict.reasons[:REASONS_MAX]),
        trace_id=about.trace_id,
        at=about.at,
    )


async def _tell(connection: AsyncConnection, items: Sequence[PolicyAlert]) -> Sequence[int]:
    """Enqueue notifications; return how many webhooks each alert is meant for.

    One that was told already, by whatever process, is left as it is: the tasks have the same key.
    """
    return [
        await actions.notices.tell(
            connection,
            item.tenant_id,
            Event.ALERTED,
            notice_id=item.notice_id,
            facts={
                "of": item.of,
                "session_id": item.session_id,
                "user_id": item.user_id,
                "policy": item.policy,
                "policy_id": item.policy_id,
                "rule": item.rule,
                "decision": item.decision,
                "reasons": item.reasons,
                "trace_id": item.trace_id,
                "message": f"{item.policy}/{item.rule} was not satisfied by a"
                f" {item.of.replace('_', '-')} of {item.user_id or 'an unknown user'}:"
                f" {item.decision}. {item.why}",
            },
            now=item.at,
        )
        for item in items
    ]


TELL_ALERT: Final = Operation(
    name="hub.tell_policy_alert", item=PolicyAlert, result=int, handle=_tell, wakes=("tasks",)
)
