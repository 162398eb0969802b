"""Mappings as data: what one may say, what its rules match, and that the newest one applies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk import catalogue, mapping
from risk.drafts import ClearanceDraft, DetectionDraft, SessionSeenDraft
from risk.mapping import compile_mappings
from risk.mappings import service
from risk.mappings.defaults import DEFAULT_MAPPINGS
from risk.mappings.model import (
    CONDITIONS_MAX,
    EFFECTS_MAX,
    MAPPINGS_PER_TENANT_MAX,
    RULES_MAX,
    VALUES_MAX,
    parse_mapping,
    render_mapping,
)
from risk.mappings.service import MappingCache
from risk.model import EntityKind, Level
from runtime.database import Database
from runtime.errors import Conflict, Invalid, NotFound
from ssf.events.registry import EVENT_TYPES
from tests.risk.kit import CAEP, LAPTOP, NOW, TENANT, TINA, World, pair, signal

THREAT = "https://mdm.vendor.example/event-type/threat"
RAISE: dict[str, Any] = {
    "do": "raise",
    "detection": "x_threat",
    "about": "device",
    "level": "HIGH",
    "clears_on": ["device_healthy"],
}
CLEAR: dict[str, Any] = {"do": "clear", "remedy": "device_healthy", "about": "device"}


def document(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "threat", "event_type": THREAT, "rules": list(rules)} | more


def matches(condition: dict[str, Any], payload: dict[str, Any]) -> bool:
    compiled = compile_mappings([parse_mapping(document({"when": [condition], "then": [RAISE]}))])
    return bool(mapping.drafts(signal(THREAT, payload), compiled))


# --- the shipped ones ---------------------------------------------------------------------------


def test_every_event_type_has_one_shipped_mapping() -> None:
    types = [each.event_type for each in DEFAULT_MAPPINGS]
    assert sorted(types) == sorted(EVENT_TYPES)
    assert len({each.mapping_id for each in service.shipped()}) == len(types)


@pytest.mark.parametrize("shipped", DEFAULT_MAPPINGS, ids=lambda each: each.event_type)
def test_shipped_mappings_are_what_a_tenant_could_write(shipped: Any) -> None:
    if shipped.rules:
        assert parse_mapping(render_mapping(shipped)) == shipped


# --- conditions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "value", "fits", "does_not"),
    [
        ("eq", "bad", ["bad"], ["BAD", "bad ", None, 1, True, ["bad"], {}]),
        ("eq", 1, [1, 1.0], [True, "1", 2, None]),
        ("eq", True, [True], [1, "true", False, None]),
        ("ne", "bad", ["good", None, 1], ["bad"]),
        ("in", ["a", 2], ["a", 2], ["b", "2", None, ["a"]]),
        ("not_in", ["a", 2], ["b", None], ["a", 2]),
        ("exists", True, ["", 0, False, []], [None]),
        ("exists", False, [None], ["", 0]),
        ("gte", 70, [70, 70.5, 1e300], [69, "70", True, None]),
        ("gt", 70, [71], [70]),
        ("lt", 0.5, [0, -1], [0.5, False]),
        ("lte", 3, [3], [4]),
        ("contains", "mal", ["malware", ["a", "mal"]], ["Malware", ["malware"], None, 3]),
        ("contains", 4, [[4]], ["4", [True], 4]),
        ("starts_with", "T1", ["T1078"], ["xT1", None, 1]),
        ("ends_with", ".exe", ["a.exe"], ["a.exe.txt", None]),
    ],
)
def test_a_condition_holds_for_exactly_these(
    op: str, value: Any, fits: list[Any], does_not: list[Any]
) -> None:
    condition = {"member": "m", "op": op, "value": value}
    assert [each for each in fits if not matches(condition, {"m": each})] == []
    assert [each for each in does_not if matches(condition, {"m": each})] == []


def test_case_is_ignored_within_ascii_only() -> None:
    condition = {"member": "m", "op": "eq", "value": "High", "ignore_case": True}
    assert matches(condition, {"m": "hIGH"})
    # A dotless i is no i: an unknown word stays unknown.
    assert not matches(condition, {"m": "h\u0131gh"})


@pytest.mark.parametrize(
    ("member", "payload", "found"),
    [
        ("/a/b", {"a": {"b": "v"}}, True),
        ("/a/1/b", {"a": [{}, {"b": "v"}]}, True),
        ("/a/9/b", {"a": [{}]}, False),
        ("/a/²", {"a": ["v"]}, False),
        ("/a/b", {"a": "text"}, False),
        ("/x~1y", {"x/y": "v"}, True),
        ("a.b", {"a.b": "v"}, True),
        ("urn:x:2.0:User", {"urn:x:2.0:User": "v"}, True),
    ],
)
def test_a_member_is_named_or_pointed_at(
    member: str, payload: dict[str, Any], *, found: bool
) -> None:
    assert matches({"member": member, "op": "eq", "value": "v"}, payload) is found


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["m", "reason_admin", "acr", "amr"]), _JSON))
def test_reading_any_event_raises_nothing(payload: dict[str, Any]) -> None:
    rules = [
        {"when": [{"member": "/m/0", "op": op, "value": value}], "then": [RAISE]}
        for op, value in (("gt", 1), ("contains", "a"), ("in", ["a"]), ("starts_with", "a"))
    ]
    last = {"then": [{**RAISE, "reason": "{m} {/m/0}"}, {"do": "see_session"}, CLEAR]}
    compiled = compile_mappings([parse_mapping(document(*rules, last))])
    assert mapping.drafts(signal(THREAT, payload), compiled)


# --- effects ------------------------------------------------------------------------------------


def test_a_vendors_private_type_is_assessed_by_its_mapping() -> None:
    rule = {"then": [{**RAISE, "confidence": 0.4, "reason": "Found {/threat/name} {n}"}, CLEAR]}
    compiled = compile_mappings([parse_mapping(document(rule))])
    some = signal(THREAT, {"threat": {"name": "Emotet"}, "n": 3})
    reading = mapping.read(some, compiled)
    assert reading.drafts == (
        DetectionDraft(
            kind=EntityKind.DEVICE,
            name="x_threat",
            level=Level.HIGH,
            clears_on=("device_healthy", "confirmed_safe"),
            reason="Found Emotet 3",
            confidence=0.4,
        ),
        ClearanceDraft(kind=EntityKind.DEVICE, remedy="device_healthy"),
    )
    assert reading.stands_for == "device"
    assert mapping.drafts(some) == ()


def test_the_first_rule_that_fits_applies_and_may_say_nothing() -> None:
    quiet = {"when": [{"member": "test", "op": "eq", "value": True}]}
    compiled = compile_mappings([parse_mapping(document(quiet, {"then": [RAISE]}))])
    assert mapping.drafts(signal(THREAT, {"test": True}), compiled) == ()
    assert len(mapping.drafts(signal(THREAT, {}), compiled)) == 1


@pytest.mark.parametrize("then_defaults", [True, False])
def test_a_tenants_mapping_stands_before_or_in_place_of_the_shipped_one(
    *, then_defaults: bool
) -> None:
    event_type = CAEP + "device-compliance-change"
    own = document(
        {"when": [{"member": "previous_status", "op": "eq", "value": "x"}], "then": [CLEAR]},
        event_type=event_type,
        then_defaults=then_defaults,
    )
    compiled = compile_mappings([parse_mapping(own)])
    bad = {"previous_status": "compliant", "current_status": "not-compliant"}
    (first,) = mapping.drafts(signal(event_type, bad | {"previous_status": "x"}), compiled)
    assert isinstance(first, ClearanceDraft)
    assert bool(mapping.drafts(signal(event_type, bad), compiled)) is then_defaults
    others = signal(CAEP + "session-established", {"acr": "a"})
    assert mapping.drafts(others, compiled) == mapping.drafts(others)


def test_what_a_session_is_said_to_be_is_bounded() -> None:
    some = signal(CAEP + "session-established", {"acr": "a" * 201, "amr": ["x" * 201, *"abc" * 9]})
    (seen,) = mapping.drafts(some)
    assert isinstance(seen, SessionSeenDraft)
    assert (seen.acr, len(seen.amr or ())) == (None, mapping.AMR_MAX)


def test_a_reason_and_a_credential_type_from_outside_are_bounded() -> None:
    effect = {
        "do": "clear",
        "remedy": "credential_changed:{kind}",
        "about": "user",
    }
    compiled = compile_mappings(
        [parse_mapping(document({"then": [effect, {**RAISE, "reason": "{kind}"}]}))]
    )
    clearance, found = mapping.drafts(signal(THREAT, {"kind": "k" * 5000}), compiled)
    assert isinstance(clearance, ClearanceDraft)
    assert isinstance(found, DetectionDraft)
    assert len(clearance.remedy) < 96
    assert len(found.reason) == 500


# --- what is refused ----------------------------------------------------------------------------


def condition(**more: Any) -> dict[str, Any]:
    return {"when": [{"member": "m", "op": "eq", "value": "v"} | more]}


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ("a text", ""),
        ({"event_type": THREAT, "rules": []}, ""),
        (document(more=1), ""),
        (document(event_type="no uri"), "/event_type"),
        (document(event_type="https://a.example/ \n"), "/event_type"),
        (document(event_type="https://" + "a" * 600), "/event_type"),
        (
            document(event_type="https://schemas.openid.net/secevent/ssf/event-type/verification"),
            "/event_type",
        ),
        (document(name=""), "/name"),
        (document(rules=[{}] * (RULES_MAX + 1)), "/rules"),
        (document({"then": [RAISE] * (EFFECTS_MAX + 1)}), "/rules/0/then"),
        (document({"when": condition()["when"] * (CONDITIONS_MAX + 1)}), "/rules/0/when"),
        (document({}, {"subject": "app"}), "/rules/1/subject"),
        (document(condition(op="matches")), "/rules/0/when/0/op"),
        (document(condition(op="eval")), "/rules/0/when/0/op"),
        (document(condition(member="")), "/rules/0/when/0/member"),
        (document(condition(member="/a" * 9)), "/rules/0/when/0/member"),
        (document(condition(value="v" * 201)), "/rules/0/when/0/value"),
        (document(condition(value=None)), "/rules/0/when/0/value"),
        (document(condition(value={"a": 1})), "/rules/0/when/0/value"),
        (document(condition(value=["v"])), "/rules/0/when/0/value"),
        (document(condition(op="in")), "/rules/0/when/0/value"),
        (document(condition(op="in", value=[])), "/rules/0/when/0/value"),
        (document(condition(op="in", value=["v"] * (VALUES_MAX + 1))), "/rules/0/when/0/value"),
        (document(condition(op="in", value=[["v"]])), "/rules/0/when/0/value/0"),
        (document(condition(op="exists")), "/rules/0/when/0/value"),
        (document(condition(op="gte")), "/rules/0/when/0/value"),
        (document(condition(op="gte", value=True)), "/rules/0/when/0/value"),
        (document(condition(op="starts_with", value=1)), "/rules/0/when/0/value"),
        (document({"then": [{**RAISE, "detection": "unheard_of"}]}), "/rules/0/then/0/detection"),
        (document({"then": [{**RAISE, "detection": "x_" + "a" * 61}]}),
         "/rules/0/then/0/detection"),
        (
            document({"then": [{**RAISE, "detection": catalogue.ADMIN_REPORTED}]}),
            "/rules/0/then/0/detection",
        ),
        (document({"then": [{**RAISE, "level": "EXTREME"}]}), "/rules/0/then/0/level"),
        (document({"then": [{**RAISE, "about": "app"}]}), "/rules/0/then/0/about"),
        (document({"then": [{**RAISE, "confidence": 1.1}]}), "/rules/0/then/0/confidence"),
        (document({"then": [{**RAISE, "reason": "r" * 501}]}), "/rules/0/then/0/reason"),
        (document({"then": [{**RAISE, "reason": "{" + "/a" * 9 + "}"}]}), "/rules/0/then/0/reason"),
        (document({"then": [{**RAISE, "clears_on": ["rain"]}]}), "/rules/0/then/0/clears_on/0"),
        (document({"then": [{**CLEAR, "do": "run"}]}), "/rules/0/then/0/do"),
        (document({"then": [{**CLEAR, "remedy": "confirmed_safe"}]}), "/rules/0/then/0/remedy"),
        (document({"then": [{**CLEAR, "remedy": "admin_lowered"}]}), "/rules/0/then/0/remedy"),
        (document({"then": [{**CLEAR, "remedy": "{m}"}]}), "/rules/0/then/0/remedy"),
        (document({"then": [{**CLEAR, "remedy": "credential_changed:"}]}),
         "/rules/0/then/0/remedy"),
        (
            document({"then": [{**CLEAR, "remedy": "credential_changed:" + "a" * 65}]}),
            "/rules/0/then/0/remedy",
        ),
        (document({"then": [{**CLEAR, "remedy": "x_{m}"}]}), "/rules/0/then/0/remedy"),
        (document({"then": [{**CLEAR, "keep": "none"}]}), "/rules/0/then/0/keep"),
        (document({"then": [{"do": "end_sessions", "of": "all"}]}), "/rules/0/then/0"),
    ],
)  # fmt: skip
def test_a_mapping_that_is_wrong_is_refused_with_the_place(wrong: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_mapping(wrong)
    assert [place for place, _ in caught.value.pointers] == [pointer]


def test_an_own_remedy_ends_only_what_its_issuer_said() -> None:
    assert catalogue.bound_to_issuer("x_clean")
    assert catalogue.finding_type("x_odd_login").title == "Odd login"
    assert not catalogue.finding_type("x_odd_login").floor


# --- stored -------------------------------------------------------------------------------------


async def test_the_newest_mapping_applies_from_its_commit_on(database: Database) -> None:
    cache = MappingCache()
    some = signal(THREAT, {})

    async def says() -> int:
        async with database.transaction() as connection:
            compiled = await cache.get(connection, {TENANT, "other"})
        assert mapping.drafts(some, compiled["other"]) == ()
        return len(mapping.drafts(some, compiled[TENANT]))

    assert await says() == 0
    async with database.transaction() as connection:
        added = await service.add_mapping(connection, TENANT, document({"then": [RAISE]}), now=NOW)
    assert await says() == 1
    async with database.transaction() as connection:
        changed = await service.change_mapping(
            connection, TENANT, added.mapping_id, document({"then": [RAISE, CLEAR]}), now=NOW
        )
    assert (await says(), changed.version) == (2, 2)
    async with database.transaction() as connection:
        await service.remove_mapping(connection, TENANT, added.mapping_id)
    assert await says() == 0


async def test_a_type_has_one_mapping_and_shipped_ones_stay(database: Database) -> None:
    async with database.transaction() as connection:
        await service.add_mapping(connection, TENANT, document(), now=NOW)
        with pytest.raises(Conflict):
            await service.add_mapping(connection, TENANT, document(), now=NOW)
        other = await service.add_mapping(
            connection, TENANT, document(event_type=THREAT + "2"), now=NOW
        )
        with pytest.raises(Conflict):
            await service.change_mapping(connection, TENANT, other.mapping_id, document(), now=NOW)
        with pytest.raises(Conflict):
            await service.remove_mapping(connection, TENANT, "caep:session-revoked")
        with pytest.raises(NotFound):
            await service.remove_mapping(connection, TENANT, "map_none")
        with pytest.raises(NotFound):
            await service.get_mapping(connection, "other", other.mapping_id)


async def test_a_tenant_has_a_limit_of_mappings(database: Database) -> None:
    many = [document(event_type=f"{THREAT}/{n}") for n in range(MAPPINGS_PER_TENANT_MAX)]
    async with database.transaction() as connection:
        await service.replace_all(connection, TENANT, many, now=NOW)
        with pytest.raises(Conflict):
            await service.add_mapping(connection, TENANT, document(), now=NOW)
        with pytest.raises(Invalid):
            await service.replace_all(connection, TENANT, [*many, document()], now=NOW)
        with pytest.raises(Invalid):
            await service.replace_all(connection, TENANT, [document(), document()], now=NOW)


async def test_a_signal_of_a_mapped_private_type_raises_a_detection(database: Database) -> None:
    world = World(database)
    await world.enforce()
    await world.add_user(TINA)
    async with database.transaction() as connection:
        await service.add_mapping(connection, TENANT, document({"then": [RAISE]}), now=NOW)
    result = await world.assess(signal(THREAT, {}, about=pair(TINA, LAPTOP)))
    assert [mark.state for mark in result.marks] == ["assessed"]
    assert [each.name for each in result.assessments[0].causes] == ["x_threat"]
    assert result.assessments[0].level is Level.HIGH
