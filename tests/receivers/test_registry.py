"""Registering, changing and removing providers, and what intake sees of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from jwcrypto.jwk import JWK

from receivers.model import ProviderMode, ProviderStatus, SubjectScope
from receivers.registry import service as registry
from receivers.registry import settings as bounds
from receivers.registry import store as registry_store
from receivers.service import find_provider
from runtime.errors import Conflict, Invalid, NotFound
from tests.receivers import vendor
from tests.receivers.conftest import TENANT, Intake, on_one_engine


async def test_a_provider_comes_back_as_it_was_registered(intake: Intake, rsa: JWK) -> None:
    added = await intake.register(
        jwks_uri=None,
        jwks=vendor.jwks(rsa),
        event_types=frozenset({vendor.DEVICE_COMPLIANCE_CHANGE}),
        subject_scope=SubjectScope(domains=frozenset({"green.example"})),
        critical_subject_members=frozenset({"user"}),
        algorithms=frozenset({"RS256"}),
        level_cap="MEDIUM",
        source_class="mdm",
        mode=ProviderMode.LOG_ONLY,
        legacy_subject=True,
        allow_missing_typ=True,
        status=ProviderStatus.QUARANTINED,
        authorization_header="Bearer secret-of-the-vendor",
    )

    found = await registry.get_provider(intake.admin, TENANT, added.provider_id)

    assert found == added
    assert "secret-of-the-vendor" not in repr(found)
    assert await registry.list_providers(intake.admin, TENANT) == [added]
    assert await registry.list_providers(intake.admin, "blue") == []


@pytest.mark.requirement("PUSH-20")
async def test_the_id_in_the_intake_url_cannot_be_guessed(intake: Intake) -> None:
    first, second = await intake.register(name="a"), await intake.register(name="b")

    assert first.provider_id.startswith("prv_")
    assert len(first.provider_id) == len("prv_") + 26
    assert first.provider_id[:12] != second.provider_id[:12]


async def test_a_name_is_taken_once_per_tenant_until_its_provider_is_deleted(
    intake: Intake,
) -> None:
    first = await intake.register()
    other = await intake.register(name="other")
    await intake.register(tenant_id="blue")
    with pytest.raises(Conflict):
        await intake.register()
    with pytest.raises(Conflict):
        await registry.update_provider(
            intake.admin, first.settings, tenant_id=TENANT, provider_id=other.provider_id
        )

    await registry.delete_provider(intake.admin, TENANT, first.provider_id)

    assert (await intake.register()).provider_id != first.provider_id


async def test_bad_settings_store_nothing(intake: Intake) -> None:
    with pytest.raises(Invalid):
        await intake.register(audiences=())
    with pytest.raises(Invalid):
        await intake.register(authorization_header="Bearer x\r\nInjected: 1")

    assert await registry.list_providers(intake.admin, TENANT) == []


@on_one_engine
async def test_a_tenant_has_a_bounded_number_of_providers(intake: Intake) -> None:
    template = await intake.register()
    async with intake.database.transaction() as connection:
        for number in range(bounds.PROVIDERS_MAX - 1):
            await registry_store.add_provider(
                connection,
                replace(
                    template,
                    provider_id=f"prv_{number}",
                    settings=replace(template.settings, name=f"n{number}"),
                ),
            )

    with pytest.raises(Conflict):
        await intake.register(name="one too many")


async def test_an_update_replaces_settings_and_keeps_the_secret(intake: Intake) -> None:
    added = await intake.register(authorization_header="Bearer abc")
    intake.clock.advance(60)

    changed = await registry.update_provider(
        intake.admin,
        replace(added.settings, level_cap="LOW"),
        tenant_id=TENANT,
        provider_id=added.provider_id,
    )

    assert changed.settings.level_cap == "LOW"
    assert changed.authorization_header_sealed == added.authorization_header_sealed
    assert changed.updated_at == intake.clock.now() > changed.created_at
    assert await registry.get_provider(intake.admin, TENANT, added.provider_id) == changed


async def test_intake_sees_every_change_of_the_registry(intake: Intake) -> None:
    profiles = intake.deps.profiles

    added = await intake.register(authorization_header="Bearer abc")
    first = await find_provider(profiles, TENANT, added.provider_id)
    assert first.authorization == b"Bearer abc"

    await registry.set_authorization_header(
        intake.admin, None, tenant_id=TENANT, provider_id=added.provider_id
    )
    await profiles.get(TENANT, fresh=True)
    second = (await profiles.get(TENANT))[added.provider_id]
    assert second.authorization is None

    with pytest.raises(NotFound):
        await find_provider(profiles, "blue", added.provider_id)


async def test_a_deleted_provider_is_gone_for_everybody_who_asks(intake: Intake) -> None:
    added = await intake.register()
    await registry.delete_provider(intake.admin, TENANT, added.provider_id)

    with pytest.raises(NotFound):
        await find_provider(intake.deps.profiles, TENANT, added.provider_id)
    with pytest.raises(NotFound):
        await registry.get_provider(intake.admin, TENANT, added.provider_id)
    with pytest.raises(NotFound):
        await registry.delete_provider(intake.admin, TENANT, added.provider_id)
    with pytest.raises(NotFound):
        await registry.set_authorization_header(
            intake.admin, "Bearer x", tenant_id=TENANT, provider_id=added.provider_id
        )
