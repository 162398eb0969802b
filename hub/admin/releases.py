"""Release of a containment: a person lets a user go, and says what to think of what held them.

    release ─▶ word about each cause ─▶ level ─▶ policy asks nothing more ─▶ undone in reverse

A containment ends when its causes do, and not before (design §8). So a release is no way around
the level: it closes the causes by a person's word, all of it in one transaction, and is refused as
a whole when something goes on holding the user.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.service
from actions.model import REQUESTED, Cause, ContainmentState, ContainmentView
from actions.withdrawal import withdraw_requests
from hub import pipeline
from hub.admin.bodies import Body
from hub.admin.context import Admin
from risk.assessment import PIN_CAUSE
from risk.feedback import service as feedback
from risk.feedback.model import Said, Word
from risk.lookups import service as lookups
from risk.model import RISK_REASON_CHARS_MAX, Assessment
from risk.routes import BY_CHARS_MAX
from runtime.errors import Conflict, Invalid

#: what a release is about; in the other states there is nothing left to let go
RELEASABLE: Final = frozenset({ContainmentState.OPEN, ContainmentState.HELD})
#: causes that are no findings
_NO_FINDINGS: Final = frozenset({REQUESTED, PIN_CAUSE})
CAUSES_TOLD_MAX: Final = 3


class ReleaseBody(Body):
    """What to think of the causes, and why.

    word: `dismiss` they were right and are of no concern any more; `confirm-safe` they were false.
    """

    word: Literal["dismiss", "confirm-safe"] = "dismiss"
    reason: str = Field(default="", max_length=RISK_REASON_CHARS_MAX)


async def release(admin: Admin, containment_id: str, body: ReleaseBody) -> None:
    """Let the user of a containment go; one that is over stays as it is.

    Raises NotFound; Conflict when something goes on holding the user: then nothing has changed.
    """
    if not body.reason.isprintable():
        raise Invalid("reason is one line.", pointers=(("/reason", "one line of text"),))
    tenant_id = admin.tenant_id
    async with admin.node.database.transaction() as connection:
        await pipeline.lock_tenants(connection, {tenant_id})
        view = await actions.service.get_containment(connection, tenant_id, containment_id)
        if view.containment.state not in RELEASABLE:
            return
        await _close_causes(connection, admin, view, body)
        await withdraw_requests(connection, tenant_id, containment_id, now=admin.now)
        after = await actions.service.get_containment(connection, tenant_id, containment_id)
        if after.containment.state in RELEASABLE:
            raise Conflict(_still_held(after))


async def _close_causes(
    connection: AsyncConnection, admin: Admin, view: ContainmentView, body: ReleaseBody
) -> None:
    """Say the word about every finding that holds the user, and respond once to what follows."""
    caps = await pipeline.caps_of(connection, {admin.tenant_id})
    said = Said(word=Word(body.word), reason=body.reason, by=admin.caller.client_id[:BY_CHARS_MAX])
    made: dict[str, Assessment] = {}
    for cause in _active(view):
        if cause.name in _NO_FINDINGS:
            continue
        only = await lookups.get_detection(connection, admin.tenant_id, cause.detection_id)
        subject = await lookups.subject_of(connection, admin.tenant_id, only)
        given = await feedback.give(
            connection,
            admin.tenant_id,
            subject,
            replace(said, only=only),
            caps=caps,
            now=admin.now,
        )
        for each in given.assessments:
            first = made.get(each.user_id, each)
            made[each.user_id] = replace(each, previous_level=first.previous_level)
    await pipeline.respond(connection, list(made.values()), now=admin.now)


def _active(view: ContainmentView) -> list[Cause]:
    return [cause for cause in view.causes if cause.cleared_at is None]


def _still_held(view: ContainmentView) -> str:
    causes = [cause.summary or cause.name for cause in _active(view)]
    named = "; ".join(causes[:CAUSES_TOLD_MAX]) or "the policy"
    return (
        f"Not released, still held by: {named}. What is grave ends by its remedy, or by the word "
        "confirm-safe when it was false."
    )
