"""Callers and errors: what is missing is named, and what is shown is bounded."""

from __future__ import annotations

import pytest

from runtime.caller import Caller
from runtime.errors import Conflict, Forbidden, Invalid, NotFound, Refused, Unauthorized

CALLER = Caller(
    tenant_id="default", client_id="cli_1", scopes=frozenset({"risk.read", "ssf.manage"})
)


def test_any_of_the_scopes_is_enough() -> None:
    CALLER.require("ssf.read", "ssf.manage")


def test_what_is_missing_is_named_by_the_first_scope() -> None:
    with pytest.raises(Forbidden) as caught:
        CALLER.require("risk.write", "admin.write")
    assert caught.value.scope == "risk.write"


def test_a_caller_without_scopes_may_nothing() -> None:
    with pytest.raises(Forbidden):
        Caller(tenant_id="default", client_id="cli_1", scopes=frozenset()).require("risk.read")


@pytest.mark.parametrize(
    ("kind", "status"),
    [(Invalid, 400), (Unauthorized, 401), (Forbidden, 403), (NotFound, 404), (Conflict, 409)],
)
def test_each_refusal_has_its_status(kind: type[Refused], status: int) -> None:
    assert kind("no").status == status


def test_a_refusal_names_at_most_twenty_places() -> None:
    refused = Invalid("no", pointers=tuple((f"/{number}", "wrong") for number in range(100)))
    assert len(refused.pointers) == 20
