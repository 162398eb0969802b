"""Envoy's and Traefik's recipes of the guide with the real servers, as the gate does for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.foreign.gateways.servers import Certified, certify
from tests.hub.commands import Forker, Shell, served
from tests.system import doors
from tests.system.doors import Door, Gateway, standing
from tests.system.gateways import Places
from tests.system.guarded import LIMIT_S, GuardedHub, echo_app, guarded

NAMES = ("envoy", "traefik")


@dataclass
class Place:
    """A hub that speaks TLS, and who trusts it."""

    known: GuardedHub
    certified: Certified

    def gateway(self, name: str) -> Gateway:
        runs: Gateway = getattr(self.certified, name)
        return runs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    certified = certify(tmp_path_factory.mktemp("certificate"))
    forker = Forker()
    try:
        folder = tmp_path_factory.mktemp("hub")
        shell = Shell(folder=folder, forker=forker, variables=certified.settings)
        with served(shell) as hub, guarded(hub, trust=certified.trust) as known:
            assert hub.issuer.startswith("https://")
            yield Place(known, certified)
    finally:
        forker.close()


@pytest.fixture(params=NAMES)
def door(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> Iterator[Door]:
    with standing(request.param, place.gateway(request.param), place.known, tmp_path) as door:
        yield door


@pytest.mark.requirement("FWA-3", "FWA-6", "FWA-23", "FWA-30", "FWA-33", "FWA-34", "FWA-41")
def test_row_19_the_recipe_lets_in_and_keeps_out(door: Door) -> None:
    doors.check_lets_in_and_keeps_out(door)


@pytest.mark.requirement("FWA-23", "FWA-31")
def test_row_19_the_recipe_asks_for_a_step_up_once_and_believes_no_address(door: Door) -> None:
    doors.check_asks_once_and_believes_no_address(door)


@pytest.mark.requirement("FWA-32")
def test_a_denied_user_sees_a_refusal(door: Door) -> None:
    doors.check_a_denied_user_sees_a_refusal(door)


def test_websockets_are_asked_about(door: Door) -> None:
    doors.check_websockets_are_asked_about(door)


@pytest.mark.parametrize(("name", "status"), [("envoy", 403), ("traefik", 500)])
def test_without_the_hub_nobody_passes(
    place: Place, name: str, status: int, tmp_path: Path
) -> None:
    assert doors.status_without_hub(place.gateway(name), place.known, tmp_path) == status


@pytest.mark.requirement("FWA-21")
@pytest.mark.parametrize("name", NAMES)
def test_a_gateway_with_a_wrong_token_keeps_everybody_out(
    place: Place, name: str, tmp_path: Path
) -> None:
    assert doors.status_with_wrong_token(place.gateway(name), place.known, tmp_path) == 403


@pytest.mark.parametrize(("name", "status"), [("envoy", 403), ("traefik", 500)])
def test_a_hub_that_cannot_prove_who_it_is_lets_nobody_in(
    place: Place, name: str, status: int, tmp_path: Path
) -> None:
    place.known.sign_in(f"ann-{name}", cookie := f"{doors.COOKIE}-of-ann-{name}")
    stranger = certify(tmp_path / "stranger")
    gateway: Gateway = getattr(stranger, name)
    known = place.known
    with echo_app() as app:
        places = Places(hub=known.hub.issuer, app=app, app_id=known.app_id, token=known.token)
        with gateway(tmp_path, places) as url:
            answer = httpx2.get(url, headers={"cookie": f"sid={cookie}"}, timeout=LIMIT_S)
            assert answer.status_code == status
