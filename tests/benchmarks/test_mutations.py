"""Bent SETs of every class against the real intake; `make soak` does many more of the same."""

from pathlib import Path

import pytest

from benchmarks.mutants import CLASSES, Workshop
from benchmarks.mutations import ACCEPTED, direct, over_http, share_of
from runtime.clock import SystemClock, epoch_s

DIRECT = 6_000
OVER_HTTP = 400
SEED = 20_260_303


@pytest.mark.requirement("SET-51", "SET-52", "SET-55", "SET-58", "SET-59", "SET-63")
async def test_no_bent_set_is_accepted_and_no_legal_one_refused(tmp_path: Path) -> None:
    tally = await direct(tmp_path, mutants=DIRECT, seed=SEED)
    assert not tally.findings
    for count in tally.counts():
        assert count.mutants >= DIRECT // 50, count.name
        assert (count.outcomes.get(ACCEPTED, 0) == count.mutants) == count.is_legal


@pytest.mark.scenario
@pytest.mark.requirement("PUSH-12", "PUSH-13")
def test_over_http_every_refusal_has_the_form_of_rfc_8935(tmp_path: Path) -> None:
    tally = over_http(tmp_path, mutants=OVER_HTTP, seed=SEED)
    assert not tally.findings
    assert sum(count.mutants for count in tally.counts()) >= OVER_HTTP - len(CLASSES)


def test_one_seed_makes_the_same_mutants_but_for_keys_and_signatures() -> None:
    now_s = epoch_s(SystemClock().now())
    first, second = Workshop(7, now_s), Workshop(7, now_s)
    assert [first.claims() for _ in range(50)] == [second.claims() for _ in range(50)]
    assert sum(share_of(each, 1_000) for each in CLASSES) == 1_000
