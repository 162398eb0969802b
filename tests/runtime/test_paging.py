"""A page size is a short number within its bounds, or refused."""

from __future__ import annotations

import pytest

from runtime.errors import Invalid
from runtime.paging import page_limit


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("200", 200), ("007", 7)])
def test_a_number_within_the_bounds_is_taken(text: str, size: int) -> None:
    assert page_limit(text, most=200) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "000", "201", "-1", "+1", "1.0", "x", " 1", "²", "٣", "0001", "000019999999"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        page_limit(text, most=200)
    assert refused.value.pointers == (("limit", "1 to 200"),)


def test_a_number_too_long_to_convert_is_refused_and_no_crash() -> None:
    """Only its first six digits were looked at before all of it was converted: a 500."""
    with pytest.raises(Invalid):
        page_limit("000001" + "0" * 5_000, most=200)
