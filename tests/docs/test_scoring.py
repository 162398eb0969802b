"""docs/scoring.md says what the rule table says."""

from __future__ import annotations

from pathlib import Path

from risk.scoring.rules import ADDRESSES, BEHAVIOURS, CHANGES

DOCUMENT = Path(__file__).parents[2] / "docs" / "scoring.md"


def table(first_column: str) -> list[tuple[str, ...]]:
    """Return the rows of the table whose first column has this title."""
    rows: list[tuple[str, ...]] = []
    is_inside = False
    for line in DOCUMENT.read_text().splitlines():
        cells = tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))
        if not line.startswith("|"):
            is_inside = False
        elif is_inside and not set(cells[0]) <= {"-"}:
            rows.append(cells)
        is_inside = is_inside or cells[0] == first_column
    return rows


def test_the_changes_are_those_of_the_table() -> None:
    assert table("Change") == [
        (name, str(points), group) for name, (points, group, _) in sorted(CHANGES.items())
    ]


def test_the_behaviours_are_those_of_the_table() -> None:
    assert table("Behaviour") == [
        (name, str(novelty.points), novelty.group) for name, novelty in sorted(BEHAVIOURS.items())
    ]


def test_the_addresses_are_those_of_the_table() -> None:
    assert table("Address") == [
        (f"*{name}" if name.startswith("_") else name, str(points)) for name, points, _ in ADDRESSES
    ]
