"""Levels for decisions: of users as they were computed last, of devices as they are now.

Nobody keeps the levels of devices: policy acts on users. Here they are computed once, and then held
until the change feed tells of news about the device.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.pipeline import caps_of
from risk import standing
from risk.entities.model import ID_PREFIX
from risk.levels import store
from risk.levels.model import caps_of_tenant
from risk.lookups.service import Subject
from risk.model import EntityKind, Level
from risk.standing import Weights
from runtime.clock import Clock

_DEVICE: Final = f"{ID_PREFIX[EntityKind.DEVICE]}_"

ReadLevels = Callable[[AsyncConnection, str, Collection[str]], Awaitable[dict[str, Level]]]


def level_reader(clock: Clock) -> ReadLevels:
    """Return what reads levels of users and devices of a tenant."""

    async def read(
        connection: AsyncConnection, tenant_id: str, entity_ids: Collection[str]
    ) -> dict[str, Level]:
        devices = sorted(each for each in entity_ids if each.startswith(_DEVICE))
        found = await store.levels_of(
            connection, tenant_id, entity_ids=set(entity_ids).difference(devices)
        )
        if not devices:
            return found
        caps = caps_of_tenant(await caps_of(connection, {tenant_id}), tenant_id)
        weights = Weights(caps=caps, reliability={}, now=clock.now())
        subjects = [Subject(kind=EntityKind.DEVICE, entity_id=each) for each in devices]
        known = await standing.known_of(connection, tenant_id, subjects, now=weights.now)
        return found | {
            each.subject.entity_id: standing.stand(each, weights).result.level for each in known
        }

    return read
