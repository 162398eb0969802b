"""Builders of what the tests of `actions` are about; every value is invented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from actions.drafts import Registry, Situation
from actions.model import (
    Action,
    App,
    AppKind,
    Cause,
    Containment,
    ContainmentOrder,
    ContainmentState,
    LogoutMethod,
    LogoutSetting,
    SCIMSetting,
    Task,
    TaskDraft,
    TaskState,
    Webhook,
)
from actions.planning import Decision
from actions.registry.model import WantedApp
from actions.settlement import task_of

TENANT = "default"
USER = "usr_rosa"
EMAIL = {"format": "email", "email": "rosa.lind@green.example"}
ISS_SUB = {"format": "iss_sub", "iss": "https://login.green.example", "sub": "u-20417"}
NOW = datetime(2026, 3, 20, 9, 51, 45, tzinfo=UTC)
ALL = frozenset({Action.QUARANTINE, Action.UNIVERSAL_LOGOUT, Action.NOTIFY})
GROUP = "grp-quarantine"


def cause(name: str = "device") -> Cause:
    return Cause(
        detection_id=f"det_{name}",
        name="DEVICE_COMPROMISED",
        issuer="https://mdm.example",
        summary=f"the {name} is compromised",
    )


def order(**changes: Any) -> ContainmentOrder:
    wanted = ContainmentOrder(
        tenant_id=TENANT,
        user_id=USER,
        trace_id="trace-1",
        level="HIGH",
        reasons=("device compromised",),
        causes=(cause(),),
        actions=ALL,
        identifiers=(EMAIL, ISS_SUB),
        label="Rosa Lind",
        received_at=NOW - timedelta(milliseconds=40),
    )
    return replace(wanted, **changes)


def clean(**changes: Any) -> ContainmentOrder:
    """An order after the last cause went."""
    return replace(order(level="LOW", causes=(), actions=frozenset()), **changes)


def wanted_idp(base_url: str, **changes: Any) -> WantedApp:
    wanted = WantedApp(
        name="Green IdP",
        kind=AppKind.IDP,
        sensitivity=100,
        issuer="https://login.green.example",
        subject_formats=("iss_sub",),
        logout=(LogoutSetting(method=LogoutMethod.GTR, endpoint_url=f"{base_url}/idp/gtr"),),
        scim=SCIMSetting(base_url=f"{base_url}/scim/v2", quarantine_group_id=GROUP),
        scim_token="scim-token",
    )
    return replace(wanted, **changes)


def wanted_app(name: str, base_url: str, method: str = "gtr", **changes: Any) -> WantedApp:
    url = f"{base_url}/apps/{name}/{method}"
    wanted = WantedApp(
        name=name,
        logout=(LogoutSetting(method=LogoutMethod(method), endpoint_url=url),),
        client_id_at_app=f"client-at-{name}",
    )
    return replace(wanted, **changes)


def app(app_id: str, **changes: Any) -> App:
    made = App(
        tenant_id=TENANT,
        app_id=app_id,
        name=app_id,
        kind=AppKind.RP,
        sensitivity=50,
        subject_formats=("email",),
        subject_issuer=None,
        logout=(
            LogoutSetting(method=LogoutMethod.GTR, endpoint_url=f"https://{app_id}.example/gtr"),
        ),
        client_id_at_app=None,
        issuer=None,
        scim=None,
        has_scim_token=False,
        status="active",
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(made, **changes)


def idp(app_id: str = "app_idp", **changes: Any) -> App:
    scim = SCIMSetting(base_url="https://idp.example/scim/v2", quarantine_group_id=GROUP)
    return app(app_id, **{"kind": AppKind.IDP, "scim": scim, "has_scim_token": True, **changes})


def webhook(webhook_id: str = "whk_1", events: tuple[str, ...] | None = None) -> Webhook:
    return Webhook(
        tenant_id=TENANT,
        webhook_id=webhook_id,
        url="https://secops.example/hook",
        events=events,
        status="active",
        created_at=NOW,
    )


REGISTRY = Registry(
    apps=(app("app_mail"), app("app_pay", sensitivity=90), idp()), webhooks=(webhook(),)
)


def containment(**changes: Any) -> Containment:
    made = Containment(
        tenant_id=TENANT,
        containment_id="ctn_1",
        user_id=USER,
        state=ContainmentState.OPEN,
        level="HIGH",
        trace_id="trace-1",
        actions=ALL,
        reasons=("device compromised",),
        identifiers=(EMAIL, ISS_SUB),
        label="Rosa Lind",
        round=1,
        opened_at=NOW,
        signal_received_at=NOW,
        enforced_at=NOW,
        closed_at=None,
    )
    return replace(made, **changes)


def after(decision: Decision, before: Situation | None, *, now: datetime = NOW) -> Situation:
    """What `plan` would find next time, had it written this decision."""
    held = decision.containment or (before.containment if before else None)
    assert held is not None
    causes = {one.detection_id: one for one in (before.causes if before else ())}
    for gone in decision.cleared:
        causes[gone] = replace(causes[gone], cleared_at=now)
    causes |= {one.detection_id: one for one in decision.attached}
    tasks = [
        replace(task, state=TaskState.CANCELLED) if task.task_id in decision.cancelled else task
        for task in (before.tasks if before else ())
    ]
    tasks += tasks_of(decision.drafts, held, now=now)
    return Situation(containment=held, causes=tuple(causes.values()), tasks=tuple(tasks))


def tasks_of(drafts: Sequence[TaskDraft], held: Containment, *, now: datetime = NOW) -> list[Task]:
    return [task_of(draft, held, now=now) for draft in drafts]
