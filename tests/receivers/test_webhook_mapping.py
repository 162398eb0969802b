"""Mappings: what a message becomes, what is refused, and the ready ones with their fixtures."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receivers.webhooks import profiles
from receivers.webhooks.mapping import (
    SIGNALS_MAX,
    MappedSignal,
    Unmappable,
    WebhookMapping,
    apply,
    read_moment,
)
from receivers.webhooks.rules import compile_mapping
from runtime.errors import Invalid
from ssf.events.registry import EVENT_TYPES, parse_event
from ssf.subject import parse_subject

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.json"))
RISK = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change"
PRODUCTS = {
    "crowdstrike", "defender", "sentinelone", "jamf-pro", "jamf-protect", "intune", "zscaler",
    "netskope", "cortex-xdr",
}  # fmt: skip


def mapping(**rule: Any) -> WebhookMapping:
    whole = {
        "name": "r",
        "subject": {"format": "opaque", "id": "d-1"},
        "event": {"type": RISK, "members": {"principal": "DEVICE", "current_level": "HIGH"}},
    }
    return compile_mapping({"rules": [whole | rule]})


def payload(members: dict[str, Any], message: Any, **rule: Any) -> dict[str, Any]:
    (found,) = apply(mapping(event={"type": RISK, "members": members}, **rule), message)
    return found.payload


def level_of(found: MappedSignal) -> str:
    level: str = found.payload.get("current_level") or found.payload["current_status"]
    return level


# --- ready mappings -----------------------------------------------------------------------------


def test_there_is_a_ready_mapping_for_every_product() -> None:
    assert set(profiles.names()) == PRODUCTS
    for name in profiles.names():
        found = profiles.find(name)
        assert found.sources
        assert all(each.startswith("https://") for each in found.sources)
        assert found.retrieved
        assert found.verified or found.why


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.stem)
def test_a_products_message_becomes_what_it_says(file: Path) -> None:
    fixture = json.loads(file.read_text())
    assert fixture["reconstructed_from"].startswith("https://")
    assert fixture["retrieved"]

    found = apply(profiles.find(fixture["profile"]).mapping, fixture["message"])

    assert [(each.event_type, level_of(each)) for each in found] == [
        (each["type"], each["level"]) for each in fixture["expect"]
    ]
    for each, expected in zip(found, fixture["expect"], strict=True):
        assert each.event_type in EVENT_TYPES
        parse_event(each.event_type, each.payload)
        parse_subject(each.sub_id)
        assert each.sub_id.get("device", {}).get("id") == expected.get("device")
        user = each.sub_id if each.sub_id["format"] == "email" else each.sub_id.get("user", {})
        assert user.get("email") == expected.get("user")
        assert each.occurred_at is not None
        assert each.vendor_id


def test_every_product_has_a_bad_message_and_a_harmless_or_clean_twin() -> None:
    by_product: dict[str, set[str]] = {}
    for file in FIXTURES:
        fixture = json.loads(file.read_text())
        levels = {each["level"] for each in fixture["expect"]} or {"nothing"}
        by_product.setdefault(fixture["profile"], set()).update(levels)
    assert by_product.keys() == PRODUCTS
    for levels in by_product.values():
        assert levels & {"HIGH", "not-compliant"}
        assert levels & {"LOW", "compliant", "nothing"}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_an_unknown_message_is_never_taken_for_an_answer(name: str) -> None:
    odd: tuple[Any, ...] = ({}, {"hello": "world"}, [])
    for message in odd:
        with pytest.raises(Unmappable):
            apply(profiles.find(name).mapping, message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(FIXTURES), st.data())
def test_a_mangled_message_is_mapped_or_refused_and_nothing_else(
    file: Path, data: st.DataObject
) -> None:
    fixture = json.loads(file.read_text())
    at: Any = fixture["message"]
    for _ in range(data.draw(st.integers(0, 3))):
        inner = at[data.draw(st.sampled_from(sorted(at)))] if isinstance(at, dict) and at else at
        inner = inner[0] if isinstance(inner, list) and inner else inner
        at = inner if isinstance(inner, dict) else at
    if isinstance(at, dict) and at:
        at[data.draw(st.sampled_from(sorted(at)))] = data.draw(JSON)
    with suppress(Unmappable):
        apply(profiles.find(fixture["profile"]).mapping, fixture["message"])


# --- the language -------------------------------------------------------------------------------


def test_values_are_found_looked_up_and_joined() -> None:
    message = {
        "a/b": {"list": [{"k": "X", "v": 1}, {"k": "y", "v": 2}]},
        "score": 640,
        "name": "Nina",
        "nothing": None,
    }
    assert payload(
        {
            "pointer": {"path": "/a~1b/list/1/v"},
            "filter": {"path": "/a~1b/list/[k=x]/v"},
            "table": {"path": "/name", "table": {"NINA": "known"}},
            "range": {"path": "/score", "ranges": [{"from": 501, "to": 750, "is": "MEDIUM"}]},
            "default": {"path": "/nothing", "default": "d"},
            "of two": {"first": [{"path": "/nothing"}, {"path": "/name"}]},
            "joined": {"join": ["<", {"path": "/score"}, ">", {"path": "/no", "optional": True}]},
            "text": {"path": "/score", "as": "text"},
            "left out": {"maybe": {"inner": {"path": "/nothing"}}},
            "deep": {"x": [1, {"path": "/name"}]},
        },
        message,
    ) == {
        "pointer": 2,
        "filter": 1,
        "table": "known",
        "range": "MEDIUM",
        "default": "d",
        "of two": "Nina",
        "joined": "<640>",
        "text": "640",
        "deep": {"x": [1, "Nina"]},
    }


def test_a_value_that_is_missing_is_named() -> None:
    members = {
        "one": {"path": "/a"},
        "two": {"path": "/b", "table": {"x": 1}},
        "three": {"path": "/c", "ranges": [{"from": 0, "to": 1, "is": "LOW"}]},
        "four": {"first": [{"path": "/d"}, {"path": "/e"}]},
    }
    with pytest.raises(Unmappable) as caught:
        payload(members, {"b": "unheard of", "c": 7})
    assert [path for path, _ in caught.value.missing] == ["/a", "/b", "/c", "/d"]


@pytest.mark.parametrize(
    ("test", "message", "holds"),
    [
        ({"path": "/a", "is": "X"}, {"a": "x"}, True),
        ({"path": "/a", "is": True}, {"a": 1}, False),
        ({"path": "/a", "is": 1}, {"a": 1.0}, True),
        ({"path": "/a", "in": ["x", "y"]}, {"a": "Y"}, True),
        ({"path": "/a", "not_in": ["x"]}, {}, True),
        ({"path": "/a", "not_in": ["x"]}, {"a": "X"}, False),
        ({"path": "/a", "exists": True}, {"a": 0}, True),
        ({"path": "/a", "exists": False}, {"a": None}, True),
        ({"path": "/a", "contains": "RESOLVED"}, {"a": "status_resolved"}, True),
        ({"path": "/a", "contains": "x"}, {"a": ["x"]}, False),
        ({"path": "/a", "at_least": 2}, {"a": 2}, True),
        ({"path": "/a", "at_least": 2}, {"a": "2"}, False),
        ({"path": "/a", "at_least": 0}, {"a": True}, False),
        ({"path": "/a", "below": 2}, {"a": 1.5}, True),
    ],
)
def test_tests_hold_or_do_not(test: dict[str, Any], message: Any, *, holds: bool) -> None:
    if holds:
        assert apply(mapping(when=[test]), message)
    else:
        with pytest.raises(Unmappable):
            apply(mapping(when=[test]), message)


def test_an_array_gives_one_signal_per_element() -> None:
    rule = {"each": "/devices", "subject": {"format": "opaque", "id": {"path": "./id"}}}
    found = apply(mapping(**rule), {"devices": [{"id": "a"}, {"id": "b"}]})
    assert [each.sub_id["id"] for each in found] == ["a", "b"]
    with pytest.raises(Unmappable):
        apply(mapping(**rule), {"devices": [{"id": "x"}] * (SIGNALS_MAX + 1)})
    with pytest.raises(Unmappable):
        apply(mapping(**rule), {"devices": [{"id": "a"}, {}]})


def test_what_is_to_be_ignored_says_nothing_and_what_fits_nothing_is_refused() -> None:
    whole = {
        "rules": [
            {
                "name": "r",
                "when": [{"path": "/type", "is": "alert"}],
                "subject": {"format": "opaque", "id": "d"},
                "event": {"type": RISK},
            }
        ],
        "ignore": [[{"path": "/type", "is": "ping"}]],
    }
    assert apply(compile_mapping(whole), {"type": "ping"}) == ()
    with pytest.raises(Unmappable):
        apply(compile_mapping(whole), {"type": "pong"})


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2026-03-02T16:35:00Z", 1_772_469_300),
        ("2026-03-02T17:35:00+01:00", 1_772_469_300),
        ("2026-03-02T16:35:00.1234567Z", 1_772_469_300),
        ("2026-03-02 16:35:00", 1_772_469_300),
        (1_772_469_300, 1_772_469_300),
        (1_772_469_300_000, 1_772_469_300),
        ("1772469300000", 1_772_469_300),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        (-1, None),
        (10**30, None),
        (True, None),
        ({}, None),
    ],
)
def test_times_are_read_as_vendors_write_them(text: object, epoch: int | None) -> None:
    moment = read_moment(text)
    assert (None if moment is None else int(moment.timestamp())) == epoch


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"more": 1},
        {"each": "a.b"},
        {"when": {}},
        {"when": [{"path": "/a"}]},
        {"when": [{"path": "/a", "is": 1, "in": [1]}]},
        {"when": [{"path": "/a", "is": {}}]},
        {"when": [{"path": "/a", "in": "x"}]},
        {"when": [{"path": "/a", "at_least": "1"}]},
        {"when": [{"path": "/a", "exists": 1}]},
        {"when": [{"path": "/a", "is": 1}] * 17},
        {"subject": "email"},
        {"subject": {"path": "/a"}},
        {"event": {"members": {}}},
        {"event": {"type": RISK, "members": []}},
        {"event": {"type": RISK, "members": {"a": {"path": "a"}}}},
        {"event": {"type": RISK, "members": {"a": {"path": "/" + "x/" * 17}}}},
        {"event": {"type": RISK, "members": {"a": {"path": "/a", "code": "x"}}}},
        {"event": {"type": RISK, "members": {"a": {"path": "/a", "table": []}}}},
        {"event": {"type": RISK, "members": {"a": {"path": "/a", "ranges": [{"from": 1}]}}}},
        {"event": {"type": RISK, "members": {"a": {"path": "/a", "table": {}, "ranges": []}}}},
        {"event": {"type": RISK, "members": {"a": {"first": "x"}}}},
        {"event": {"type": RISK, "members": {"a": {"join": [], "first": []}}}},
        {"event": {"type": RISK, "members": {"a": "x" * 1_025}}},
        {"event": {"type": RISK, "members": {str(n): 1 for n in range(33)}}},
        {"event": {"type": RISK, "members": {"a": [[[[[[[1]]]]]]]}}},
    ],
)
def test_what_is_no_mapping_is_refused_with_its_place(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        mapping(**change)
    assert all(pointer.startswith("/rules/0") for pointer, _ in caught.value.pointers)


@given(JSON)
def test_whatever_is_given_as_a_mapping_is_refused_properly(document: Any) -> None:
    for given_document in (document, {"rules": [document]}, {"rules": [], "ignore": document}):
        with pytest.raises(Invalid):
            compile_mapping(given_document)
