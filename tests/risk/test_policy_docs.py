"""The examples of docs/policies.md are policies that can be applied as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from risk.contexts.model import Change
from risk.policies.documents import PolicyKind, parse_policy
from risk.policies.expressions import VARIABLES
from risk.policies.review import warnings

TEXT = (Path(__file__).parents[2] / "docs/policies.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def test_there_is_an_example_of_each_kind() -> None:
    assert {each["type"] for each in EXAMPLES} == set(PolicyKind)


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda each: str(each["type"]))
def test_an_example_is_read_without_a_warning(document: dict[str, Any]) -> None:
    kind = PolicyKind(document["type"])
    assert warnings(parse_policy(document, policy_id=kind.value, kind=kind)) == []


def test_every_variable_and_every_change_is_in_the_tables() -> None:
    for name in (*VARIABLES, *(change.value for change in Change if change is not Change.NONE)):
        assert f"`{name}`" in TEXT, name
