"""Our own hub as receiver under the conformance suite, over real TLS: push, poll, stream client."""

from __future__ import annotations

from typing import Final

import pytest

from tests.scenarios.conftest import Conformance
from tests.scenarios.receiver_runs import Run

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

DIRECT: Final = (
    "PUSH-7", "PUSH-10", "PUSH-12", "PUSH-14", "PUSH-21", "PUSH-30", "PUSH-31", "PUSH-32",
    "PUSH-33",
    "CR-5", "CR-6", "CR-10", "CR-12", "CR-20", "CR-21", "CR-22", "CRC-9", "CRC-10",
    "SET-31", "SET-33", "SET-43", "SET-53", "SET-54", "SET-55", "SET-57", "SET-59", "SET-61",
)  # fmt: skip
CLIENT: Final = (
    "CR-2", "CR-4", "CR-5", "CR-6", "CR-7", "CR-10", "CR-11", "CR-13", "CR-14", "CR-15", "CR-20",
    "CR-22", "CRC-3", "CRC-4", "CRC-5", "CRC-6", "CRC-7", "CRC-10", "CRC-14",
    "POLL-18", "POLL-25", "SSF-VER-11",
)  # fmt: skip
FULL: Final = ("CR-1", "CR-3", "CRC-1")
POLLED: Final = ("POLL-12", "POLL-14", "POLL-15", "POLL-16")


@pytest.fixture
def runs(conformance: Conformance) -> dict[str, Run]:
    """Return three runs against one hub."""
    return conformance.receiver


@pytest.mark.requirement(
    "PUSH-7", "PUSH-10", "PUSH-12", "PUSH-14", "SET-54", "CRC-9", "CRC-10", "CRC-12", "CR-10",
    "CR-12",
    "CR-20", "CR-21", "CR-22",
)  # fmt: skip
async def test_a_push_endpoint_of_the_hub_is_conformant(runs: dict[str, Run]) -> None:
    done = runs["direct"]
    assert done.code == 0, done.told
    assert not done.missing(*DIRECT), done.told


@pytest.mark.requirement(
    "CR-1", "CR-2", "CR-3", "CR-4", "CR-5", "CR-6", "CR-7", "CR-11", "CR-13", "CR-14", "CR-15",
    "CRC-1", "CRC-2", "CRC-3", "CRC-4", "CRC-5", "CRC-6", "CRC-7", "CRC-8", "CRC-11", "CRC-13",
    "CRC-14", "CRC-15", "POLL-15", "POLL-16", "POLL-25", "INT-12", "INT-13",
)  # fmt: skip
@pytest.mark.parametrize("delivery", ["push", "poll"])
async def test_the_stream_client_of_the_hub_is_conformant(
    runs: dict[str, Run], delivery: str
) -> None:
    done = runs[delivery]
    assert done.code == 0, done.told
    names = {one["name"] for one in done.document["checks"]}
    wanted = CLIENT + (FULL if "happy_path" in names else ())
    assert not done.missing(*wanted, *(POLLED if delivery == "poll" else ())), done.told
