"""The register of requirements: what the check of it finds, and what its table says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.requirements import (
    ROOT,
    SUITE,
    Requirement,
    find_faults,
    read_checks,
    read_decisions,
    read_markers,
    read_register,
    render_table,
)

ROW = Requirement(
    requirement_id="BCL-1",
    level="MUST",
    role="OP",
    source="x",
    text="t",
    status="declined",
    adr="0007",
)


@pytest.fixture
def decisions(tmp_path: Path) -> dict[str, Path]:
    """Decision 0007 names BCL-1; 0008 names its longer namesakes only."""
    (tmp_path / "0007-seven.md").write_text("We leave out BCL-1, for a reason.")
    (tmp_path / "0008-eight.md").write_text("We leave out BCL-10 and EGW-BCL-1-2.")
    (tmp_path / "README.md").write_text("BCL-1")
    return read_decisions(tmp_path)


def faults(decisions: dict[str, Path], row: Requirement, *tests: str) -> list[str]:
    markers = {row.requirement_id: list(tests)} if tests else {}
    return find_faults({row.requirement_id: row}, markers, {}, decisions)


def test_the_register_of_this_project_has_no_fault() -> None:
    register, markers = read_register(), read_markers(ROOT / "tests")
    assert find_faults(register, markers, read_checks(SUITE), read_decisions()) == []


def test_a_row_that_is_not_built_needs_a_decision_that_names_it(decisions: dict[str, Path]) -> None:
    assert faults(decisions, ROW) == faults(decisions, replace(ROW, status="planned")) == []
    for row, fault in (
        (replace(ROW, adr=""), "there is no decision ''"),
        (replace(ROW, adr="0009"), "there is no decision '0009'"),
        (replace(ROW, adr="0008"), "decision 0008 does not name it"),
        (replace(ROW, status="built"), "names a decision but is built"),
        (replace(ROW, status="planned", adr=""), "planned, but there is no decision ''"),
        (replace(ROW, status="planned", adr="0008"), "decision 0008 does not name it"),
        (replace(ROW, status="done"), "'done' is none of built, planned, declined"),
    ):
        assert any(fault in line for line in faults(decisions, row)), fault


def test_a_declined_row_has_no_test(decisions: dict[str, Path]) -> None:
    assert faults(decisions, ROW, "tests/a.py") == [
        "BCL-1: has a test, so its status is not 'declined'"
    ]


def test_two_decisions_with_one_number_are_told_apart_by_nobody(tmp_path: Path) -> None:
    for name in ("0007-seven.md", "0007-other.md"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="the same number"):
        read_decisions(tmp_path)


def test_the_table_leads_to_the_decision(decisions: dict[str, Path]) -> None:
    table = render_table({"BCL-1": ROW}, {}, {}, decisions)
    assert "| [declined](adr/0007-seven.md) |" in table
    assert "1 are declined, 0 planned" in table
    table = render_table({"BCL-1": replace(ROW, status="planned")}, {}, {}, decisions)
    assert "| [planned](adr/0007-seven.md) |" in table
    assert "0 are declined, 1 planned" in table
