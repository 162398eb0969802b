"""The recipes of docs/integrate-gateway.md with the real gateways, a real hub and an app behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.commands import Forker, Shell, served
from tests.system import doors
from tests.system.doors import Door, standing
from tests.system.gateways import GATEWAYS
from tests.system.guarded import GuardedHub, guarded


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedHub]:
    forker = Forker()
    try:
        shell = Shell(folder=tmp_path_factory.mktemp("hub"), forker=forker)
        with served(shell) as hub, guarded(hub) as known:
            yield known
    finally:
        forker.close()


@pytest.fixture(params=list(GATEWAYS))
def door(request: pytest.FixtureRequest, known: GuardedHub, tmp_path: Path) -> Iterator[Door]:
    with standing(request.param, GATEWAYS[request.param], known, tmp_path) as door:
        yield door


@pytest.mark.requirement(
    "FWA-1", "FWA-2", "FWA-4", "FWA-5", "FWA-23", "FWA-30", "FWA-33", "FWA-34", "FWA-41", "FWA-43"
)
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


@pytest.mark.parametrize("name", list(GATEWAYS))
def test_without_the_hub_nobody_passes(known: GuardedHub, name: str, tmp_path: Path) -> None:
    assert doors.status_without_hub(GATEWAYS[name], known, tmp_path) in {403, 502}


@pytest.mark.requirement("FWA-21")
@pytest.mark.parametrize("name", list(GATEWAYS))
def test_a_gateway_with_a_wrong_token_keeps_everybody_out(
    known: GuardedHub, name: str, tmp_path: Path
) -> None:
    assert doors.status_with_wrong_token(GATEWAYS[name], known, tmp_path) == 403
