"""Our own hub under the conformance suite, over real TLS, as any other implementation would be."""

from __future__ import annotations

from typing import Final

import pytest

from tests.scenarios.conftest import Conformance
from tests.scenarios.transmitter_runs import PLACES, Run

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

#: what no run may leave out
ALWAYS: Final = (
    *(f"CT-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 15, 17, 18, 19, 20, 21, 22)),
    *(f"CTC-{number}" for number in (1, 2, 3, 5, 6, 7, 8, 9)),
    *(f"CTS-{number}" for number in (1, 3, 4, 5, 6, 7, 8, 9, 11, 12)),
    "POLL-6", "POLL-8", "POLL-10", "POLL-12", "POLL-23", "PUSH-5", "PUSH-6", "PUSH-44",
    "SSF-AUTH-2", "SSF-OP-52", "SSF-STAT-13", "SSF-VER-7", "INT-29",
)  # fmt: skip
MANAGED: Final = (
    *(f"CT-{number}" for number in (8, 9, 10, 11, 12, 13, 14, 16)),
    "SSF-OP-20", "SSF-OP-21", "SSF-OP-30", "SSF-STAT-4", "SSF-STAT-6", "SSF-SUBJ-8",
)  # fmt: skip
INTEROP: Final = (
    "CTS-2", "SET-34",
    *(f"INT-{number}" for number in (3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 31, 40, 41, 42)),
)  # fmt: skip
CLIENT: Final = ("CTC-4", "INT-21", "INT-23", "INT-25", "OA-1", "OA-2", "OA-4", "OA-5", "OA-9")


@pytest.fixture
def runs(conformance: Conformance) -> dict[str, Run]:
    """Return two runs against one hub."""
    return conformance.transmitter


@pytest.mark.requirement(
    "CTC-1", "CTC-2", "CTC-3", "CTC-4", "CTC-5", "CTC-6", "CTC-7", "CTC-8", "CTC-9",
    "CT-1", "CT-2", "CT-3", "CT-4", "CT-5", "CT-6", "CT-7", "CT-8", "CT-9", "CT-10", "CT-11",
    "CT-12", "CT-13", "CT-14", "CT-15", "CT-16", "CT-17", "CT-18", "CT-19", "CT-20", "CT-21",
    "CT-22",
    "CTS-1", "CTS-2", "CTS-3", "CTS-4", "CTS-5", "CTS-6", "CTS-7", "CTS-8", "CTS-9", "CTS-11",
    "CTS-10", "CTS-12", "INT-6", "INT-7", "INT-8", "INT-11", "INT-30", "INT-41", "PUSH-6", "POLL-2",
    "POLL-20",
)  # fmt: skip
@pytest.mark.parametrize("place", PLACES)
async def test_row_24_the_hub_is_conformant_with_nothing_left_out(
    runs: dict[str, Run], place: str
) -> None:
    done = runs[place]
    assert done.code == 0, done.told
    assert not done.document["failed"]
    interop = "caep_events" in {one["name"] for one in done.document["checks"]} and (
        done.outcome("CTS-2") == "pass"
    )
    wanted = (*ALWAYS, *(INTEROP if interop else (*MANAGED, *CLIENT)))
    others = {each: done.outcome(each) for each in wanted if done.outcome(each) != "pass"}
    assert not others
    warned = {
        each: told for each, told in done.document["requirements"].items()
        if told["outcome"] == "warn"
    }  # fmt: skip
    assert not warned


@pytest.mark.parametrize("place", PLACES)
async def test_the_reports_agree(runs: dict[str, Run], place: str) -> None:
    done = runs[place]
    assert done.told.splitlines()[-1] == "conformant as far as checked"
    assert done.junit.get("failures") == "0"
    cases = done.junit.findall("testcase")
    assert len(cases) == len(done.document["checks"]) == int(done.junit.get("tests", "0"))
    assert {case.get("classname", "").rpartition(".")[2] for case in cases} == {
        "once",
        "push",
        "poll",
    }
