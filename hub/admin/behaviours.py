"""Behaviours of a tenant, in the shape practitioners know, and learning a user anew."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

import risk.app_use.service as app_use
import risk.baselines.service as baselines
import risk.behaviours.service as behaviours
from hub.admin.bodies import Body
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from risk.behaviours.model import NAME_CHARS_MAX, StoredBehaviour, render_settings
from risk.entities import service as entities

Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
Status = Literal["ACTIVE", "INACTIVE"]


class BehaviourBody(Body):
    """A behaviour. type and settings as in docs/behaviours.md."""

    name: Name
    type: Annotated[str, Field(max_length=32)]
    settings: dict[str, Any] = Field(default_factory=dict, max_length=10)
    status: Status = "ACTIVE"


class BehaviourChange(Body):
    """What can be changed; settings that are left out stay."""

    name: Name | None = None
    type: Annotated[str, Field(max_length=32)] | None = None
    settings: dict[str, Any] | None = Field(default=None, max_length=10)
    status: Status | None = None


class ResetBody(Body):
    """A user, as `usr_…`, `email:…`, `ext:…` or `iss_sub:…|…`."""

    user: Annotated[str, Field(min_length=1, max_length=1_000)]


async def list_all(admin: Admin, listing: Listing) -> list[Document]:
    """Return behaviours by id, the built-in ones among them."""
    async with admin.node.database.snapshot() as connection:
        found = await behaviours.list_behaviours(connection, admin.tenant_id)
    page = [each for each in found if each.behaviour.behaviour_id > listing.after]
    return [_shown(each) for each in page[: listing.limit]]


async def read(admin: Admin, behaviour_id: str) -> Document:
    """Return one behaviour."""
    async with admin.node.database.snapshot() as connection:
        return _shown(await behaviours.get_behaviour(connection, admin.tenant_id, behaviour_id))


async def create(admin: Admin, body: BehaviourBody) -> Document:
    """Add a behaviour; it is evaluated from now on."""
    async with admin.node.database.transaction() as connection:
        added = await behaviours.add_behaviour(
            connection, admin.tenant_id, body.model_dump(), now=admin.now
        )
    return _shown(added)


async def change(admin: Admin, behaviour_id: str, body: BehaviourChange) -> Document:
    """Change a behaviour, or switch it off."""
    async with admin.node.database.transaction() as connection:
        changed = await behaviours.change_behaviour(
            connection,
            admin.tenant_id,
            behaviour_id,
            body.model_dump(exclude_unset=True),
            now=admin.now,
        )
    return _shown(changed)


async def delete(admin: Admin, behaviour_id: str) -> None:
    """Delete a behaviour; a built-in one falls back to how it is shipped."""
    async with admin.node.database.transaction() as connection:
        await behaviours.delete_behaviour(connection, admin.tenant_id, behaviour_id)


async def reset_user(admin: Admin, _id: str, body: ResetBody) -> Document:
    """Forget what is known-good of a user, who is then learned anew."""
    async with admin.node.database.transaction() as connection:
        user_id = await entities.resolve(connection, admin.tenant_id, body.user)
        was_known = await baselines.forget(connection, admin.tenant_id, user_id)
        await app_use.forget(connection, admin.tenant_id, user_id)
    return {"user_id": user_id, "was_known": was_known}


def _shown(stored: StoredBehaviour) -> Document:
    behaviour = stored.behaviour
    return {
        "id": behaviour.behaviour_id,
        "name": behaviour.name,
        "type": behaviour.type.value,
        "status": "ACTIVE" if behaviour.is_active else "INACTIVE",
        "settings": render_settings(behaviour),
        "built_in": behaviour.is_built_in,
        "created": stored.created_at,
        "lastUpdated": stored.updated_at,
    }


KINDS: Final = (
    Kind(
        name="behaviours",
        item="behaviour",
        summary="behaviours: what is new for a user, as conditions of policies",
        list_page=list_all,
        read=read,
        create=create,
        create_body=BehaviourBody,
        change=change,
        change_body=BehaviourChange,
        delete=delete,
        actions=(
            Action(
                name="reset-user",
                summary="Forget what is known-good of a user, who is then learned anew.",
                perform=reset_user,
                body=ResetBody,
                on_kind=True,
            ),
        ),
        example={
            "name": "Far away",
            "type": "ANOMALOUS_LOCATION",
            "status": "ACTIVE",
            "settings": {
                "granularity": "LAT_LONG",
                "radiusKilometers": 500.0,
                "maxEventsUsedForEvaluation": 50,
                "minEventsNeededForEvaluation": 3,
            },
        },
    ),
)
