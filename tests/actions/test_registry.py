"""Registering apps and webhooks; on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actions.model import AppKind, LogoutMethod, LogoutSetting, SCIMDialect, SCIMSetting
from actions.registry import service, store
from actions.registry.model import WantedApp, WantedWebhook, check_app, wanted_of
from actions.webhook import parse_secret
from runtime.errors import Conflict, Invalid, NotFound
from runtime.store import system_config_versions
from tests.actions import kit
from tests.actions.conftest import SECRET, Hub

URL = "https://pay.example"


async def test_an_app_reads_back_as_it_was_wanted(hub: Hub) -> None:
    wanted = kit.wanted_idp(URL)
    app = await hub.add_app(wanted)

    async with hub.database.snapshot() as connection:
        assert await service.get_app(connection, kit.TENANT, app.app_id) == app
        assert await service.list_apps(connection, kit.TENANT) == [app]
        assert await service.list_apps(connection, "blue") == []
    assert wanted_of(app) == replace(wanted, scim_token=None)
    assert app.has_scim_token


async def test_a_change_is_announced_to_the_caches(hub: Hub) -> None:
    await hub.add_app(kit.wanted_app("pay", URL))
    await hub.add_webhook("https://secops.example/hook")

    async with hub.database.snapshot() as connection:
        versions = await system_config_versions(connection)
    assert versions[kit.TENANT, "apps"] == 2


async def test_secrets_are_sealed_and_shown_nowhere(hub: Hub) -> None:
    app = await hub.add_app(kit.wanted_idp(URL))

    async with hub.database.snapshot() as connection:
        sealed = await store.sealed_apps(connection, [(kit.TENANT, app.app_id)])
    token = sealed[kit.TENANT, app.app_id].scim_token_sealed
    assert token is not None
    assert "scim-token" not in token
    assert hub.box.open(token) == "scim-token"
    assert "scim-token" not in repr(app)
    assert "scim-token" not in repr(kit.wanted_idp(URL))


async def test_a_token_that_is_not_given_is_kept_until_scim_is_switched_off(hub: Hub) -> None:
    app = await hub.add_app(kit.wanted_idp(URL))

    async def change(wanted: WantedApp) -> bool:
        async with hub.database.transaction() as connection:
            changed = await service.update_app(
                connection, app.app_id, wanted, tenant_id=kit.TENANT, box=hub.box, now=kit.NOW
            )
            assert await service.get_app(connection, kit.TENANT, app.app_id) == changed
        return changed.has_scim_token

    assert await change(replace(wanted_of(app), name="Blue IdP"))
    assert await change(replace(wanted_of(app), scim_token="another"))
    assert not await change(replace(wanted_of(app), scim=None))


async def test_two_apps_cannot_share_a_name(hub: Hub) -> None:
    await hub.add_app(kit.wanted_app("pay", URL))

    with pytest.raises(Conflict):
        await hub.add_app(kit.wanted_app("pay", URL))


async def test_an_app_can_be_forgotten_once(hub: Hub) -> None:
    app = await hub.add_app(kit.wanted_app("pay", URL))

    async with hub.database.transaction() as connection:
        with pytest.raises(NotFound):
            await service.delete_app(connection, "blue", app.app_id)
        await service.delete_app(connection, kit.TENANT, app.app_id)
        with pytest.raises(NotFound):
            await service.get_app(connection, kit.TENANT, app.app_id)


async def test_a_webhook_without_a_secret_gets_one_that_is_shown_once(hub: Hub) -> None:
    async with hub.database.transaction() as connection:
        made = await service.add_webhook(
            connection,
            WantedWebhook(url="https://secops.example/hook", events=("containment.opened",)),
            tenant_id=kit.TENANT,
            box=hub.box,
            now=kit.NOW,
        )
        listed = await service.list_webhooks(connection, kit.TENANT)

    assert made.secret is not None
    assert len(parse_secret(made.secret)) == 32
    assert made.secret not in repr(made)
    assert listed == [made.webhook]


async def test_a_given_secret_is_not_shown_again(hub: Hub) -> None:
    async with hub.database.transaction() as connection:
        made = await service.add_webhook(
            connection,
            WantedWebhook(url="https://secops.example/hook", secret=SECRET),
            tenant_id=kit.TENANT,
            box=hub.box,
            now=kit.NOW,
        )
        await service.delete_webhook(connection, kit.TENANT, made.webhook.webhook_id)
        with pytest.raises(NotFound):
            await service.delete_webhook(connection, kit.TENANT, made.webhook.webhook_id)

    assert made.secret is None


GTR = LogoutMethod.GTR
BCL = LogoutMethod.BCL
SCIM = SCIMSetting(base_url=f"{URL}/scim", quarantine_group_id="g1")


@pytest.mark.requirement("BCL-2", "BCL-12", "SCC-19")
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": " "}, "/name"),
        ({"sensitivity": 101}, "/sensitivity"),
        ({"status": "gone"}, "/status"),
        ({"subject_formats": ()}, "/subject_formats"),
        ({"subject_formats": ("aliases",)}, "/subject_formats"),
        ({"logout": (LogoutSetting(method=GTR),)}, "/logout/0/endpoint_url"),
        (
            {"logout": (LogoutSetting(method=GTR, endpoint_url="ftp://x"),)},
            "/logout/0/endpoint_url",
        ),
        (
            {"logout": (LogoutSetting(method=GTR, endpoint_url=f"{URL}#x"),)},
            "/logout/0/endpoint_url",
        ),
        (
            {"logout": (LogoutSetting(method=GTR, endpoint_url="https://x:99999"),)},
            "/logout/0/endpoint_url",
        ),
        ({"logout": (LogoutSetting(method=BCL, endpoint_url=URL),)}, "/client_id_at_app"),
        ({"logout": (LogoutSetting(method=GTR, endpoint_url=URL),) * 2}, "/logout"),
        ({"scim": SCIM, "scim_token": "t"}, "/scim"),
        ({"kind": AppKind.IDP, "scim": SCIM}, "/scim_token"),
        (
            {
                "kind": AppKind.IDP,
                "scim": replace(SCIM, quarantine_group_id=""),
                "scim_token": "t",
            },
            "/scim/quarantine_group_id",
        ),
        (
            {"kind": AppKind.IDP, "scim": replace(SCIM, base_url=""), "scim_token": "t"},
            "/scim/base_url",
        ),
        (
            {"kind": AppKind.IDP, "scim": replace(SCIM, user_attribute="x"), "scim_token": "t"},
            "/scim/user_attribute",
        ),
    ],
)
def test_an_unacceptable_app_is_refused_with_a_pointer(
    changes: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        check_app(WantedApp(**{"name": "pay", **changes}))

    assert [where for where, _ in refusal.value.pointers] == [pointer]


def test_an_app_of_a_stream_needs_no_endpoint() -> None:
    check_app(WantedApp(name="pay", logout=(LogoutSetting(method=LogoutMethod.SSF),)))


def test_the_dangerous_dialect_is_never_the_default() -> None:
    assert SCIM.dialect is SCIMDialect.FILTER


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"url": "nowhere"}, "/url"),
        ({"events": ("user.created",)}, "/events"),
        ({"secret": "short"}, "/secret"),
    ],
)
async def test_an_unacceptable_webhook_is_refused_with_a_pointer(
    hub: Hub, changes: dict[str, Any], pointer: str
) -> None:
    wanted = WantedWebhook(**{"url": "https://secops.example/hook", **changes})
    async with hub.database.transaction() as connection:
        with pytest.raises(Invalid) as refusal:
            await service.add_webhook(
                connection, wanted, tenant_id=kit.TENANT, box=hub.box, now=kit.NOW
            )

    assert [where for where, _ in refusal.value.pointers] == [pointer]
