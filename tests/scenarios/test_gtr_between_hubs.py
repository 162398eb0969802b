"""Two hubs as processes: one calls the other's Global Token Revocation with its signed JWT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conformance.stand_in import eventually
from tests.hub.commands import Forker, Served, Shell, served

pytestmark = pytest.mark.scenario

ROSA = {"format": "email", "email": "rosa.lind@customer.example"}


def post(hub: Served, path: str, document: object, method: str = "POST") -> Any:
    headers = {"authorization": f"Bearer {hub.token}"}
    answer = httpx2.request(method, hub.issuer + path, json=document, headers=headers, timeout=60)
    assert answer.is_success, answer.text
    return answer.json()


def states(hub: Served) -> list[str]:
    headers = {"authorization": f"Bearer {hub.token}"}
    found = httpx2.get(f"{hub.issuer}/admin/v1/containments", headers=headers, timeout=60)
    return [each["state"] for each in found.json()["items"]]


@pytest.mark.requirement("GTR-14", "GTR-20", "GTR-21", "GTR-22")
def test_row_32_one_hubs_logout_starts_the_others_fan_out(tmp_path: Path) -> None:
    forker = Forker()
    folders = [tmp_path / name for name in ("asking", "asked")]
    for folder in folders:
        folder.mkdir()
    asking_shell, asked_shell = (Shell(folder=folder, forker=forker) for folder in folders)
    try:
        with served(asking_shell) as asking, served(asked_shell) as asked:
            for hub in (asking, asked):
                post(hub, "/admin/v1/users", {"identifiers": [ROSA]})
            provider = {
                "name": "the other hub",
                "issuer": asking.issuer,
                "jwks_uri": f"{asking.issuer}/jwks.json",
                "audiences": [asked.issuer],
                "may_revoke": True,
            }
            post(asked, "/admin/v1/providers", provider)
            url = f"{asked.issuer}/v1/global-token-revocation"
            app = {
                "name": "the other hub",
                "client_id_at_app": "asking-hub",
                "logout": [{"method": "gtr", "endpoint_url": url}],
            }
            post(asking, "/admin/v1/apps", app)
            preset = {"name": "standard", "mode": "enforce"}
            post(asking, "/admin/v1/policies:preset", preset)
            path = "/api/v1/users/email:rosa.lind@customer.example/risk"
            post(asking, path, {"riskLevel": "HIGH"}, method="PUT")

            assert eventually(lambda: states(asked) == ["closed"])
            assert states(asking) == ["open"]
    finally:
        forker.close()
