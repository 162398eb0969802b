"""Reading levels, reasons, references and sessions from outside; links and owners."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from risk.entities.model import (
    Link,
    LinkKind,
    Reference,
    label_of,
    owner_changes,
    parse_identifier,
    parse_identifiers,
    parse_reference,
)
from risk.model import DEFAULT_RISK_REASON, Level, parse_level, parse_risk_reason
from risk.sessions.model import (
    Session,
    parse_moment,
    parse_session,
    put,
    render_session,
    session_key,
)
from runtime.errors import Invalid
from ssf.subject import email, iss_sub, opaque, parse_subject
from tests.risk.kit import IDP, LAPTOP, MDM, NOW, TENANT, TINA, hours, pair


@pytest.mark.parametrize("wanted", list(Level))
def test_a_level_is_read_by_its_name(wanted: Level) -> None:
    assert parse_level(wanted.name) is wanted


@pytest.mark.parametrize("value", ["high", "NONE", "", None, 3, ["HIGH"], True])
def test_no_other_level_is_read(value: object) -> None:
    with pytest.raises(Invalid):
        parse_level(value)


def test_a_reason_has_up_to_500_characters() -> None:
    assert parse_risk_reason("x" * 500) == "x" * 500
    with pytest.raises(Invalid):
        parse_risk_reason("x" * 501)


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_reason_there_is_a_default(value: object) -> None:
    assert parse_risk_reason(value) == DEFAULT_RISK_REASON


@pytest.mark.parametrize("value", [7, ["x"], "a\0b", "two\nlines"])
def test_a_reason_is_one_line_of_text(value: object) -> None:
    with pytest.raises(Invalid):
        parse_risk_reason(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("usr_01", Reference(entity_id="usr_01")),
        ("email:tina@customer.example", Reference(subject=email("tina@customer.example"))),
        ("ext:0042", Reference(external_id="0042")),
        (f"iss_sub:{IDP}|u|1", Reference(subject=iss_sub(IDP, "u|1"))),
    ],
)
def test_a_user_is_named_in_four_ways(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "tina", "ext:", "email:", "iss_sub:x", "phone:1", None, 5, "usr_\0", "x" * 3000]
)
def test_no_other_name_is_read(text: object) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)


def test_identifiers_are_simple_and_bounded() -> None:
    assert parse_identifier(TINA, "/user") == email("tina@customer.example")
    both = parse_identifiers([{"format": "aliases", "identifiers": [TINA, LAPTOP]}], "/x")
    assert both == (email("tina@customer.example"), opaque("LT-1"))
    for items in ([], [pair(TINA, LAPTOP)], ["x"], [TINA] * 51):
        with pytest.raises(Invalid):
            parse_identifiers(items, "/x")


def test_a_label_is_the_most_readable_name() -> None:
    assert label_of([opaque("LT-1"), email("tina@customer.example")]) == "tina@customer.example"
    strange = parse_subject({"format": "badge", "number": 7})
    assert label_of([strange]).startswith("badge:")  # type: ignore[list-item]  # it is simple


# --- links --------------------------------------------------------------------------------------


def owner(user_id: str, at: datetime, **more: Any) -> Link:
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "device_id": "dev_1",
        "user_id": user_id,
        "kind": LinkKind.OWNER,
        "source": MDM,
        "since": at,
        "until": None,
    }
    return Link(**(values | more))


def stated(*said: Link) -> dict[tuple[str, str], Link]:
    links: dict[tuple[str, str], Link] = {}
    for each in said:
        for changed in owner_changes(list(links.values()), each):
            links[changed.user_id, changed.source] = changed
    return links


def test_a_newer_owner_of_the_same_source_takes_the_place() -> None:
    for order in permutations([owner("usr_1", NOW), owner("usr_2", NOW + hours(1))]):
        links = stated(*order)
        assert links["usr_1", MDM].until == NOW + hours(1)
        assert links["usr_2", MDM].until is None


def test_what_another_source_says_stays() -> None:
    links = stated(owner("usr_1", NOW, source="admin"), owner("usr_2", NOW + hours(1)))
    assert {link.until for link in links.values()} == {None}


def test_saying_it_again_changes_nothing() -> None:
    assert owner_changes([owner("usr_1", NOW)], owner("usr_1", NOW + hours(1))) == []


def test_saying_it_late_moves_the_beginning() -> None:
    (changed,) = owner_changes([owner("usr_1", NOW)], owner("usr_1", NOW - hours(1)))
    assert (changed.since, changed.until) == (NOW - hours(1), None)


def test_an_owner_may_come_back() -> None:
    links = stated(
        owner("usr_1", NOW), owner("usr_2", NOW + hours(1)), owner("usr_1", NOW + hours(2))
    )
    assert links["usr_1", MDM].until is None
    assert links["usr_2", MDM].until == NOW + hours(2)


def test_a_link_covers_what_came_before_its_end() -> None:
    assert owner("usr_1", NOW).covers(NOW + hours(9))
    ended = owner("usr_1", NOW, until=NOW + hours(1))
    assert ended.covers(NOW)
    assert not ended.covers(NOW + hours(1))


# --- sessions -----------------------------------------------------------------------------------


def session(**more: Any) -> Session:
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "iss": IDP,
        "sid": "s1",
        "session_id": "ses_1",
        "user_id": "usr_1",
        "device_id": "dev_1",
        "app_id": None,
        "client": None,
        "amr": (),
        "acr": None,
        "started_at": NOW,
        "expires_at": None,
        "ended_at": None,
        "cookie_sha256": None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Session(**(values | more))


def test_a_known_session_keeps_its_id_its_beginning_and_its_device() -> None:
    wanted = session(session_id="ses_2", started_at=NOW + hours(1), device_id=None, acr="AAL2")
    kept = put(session(), wanted)
    assert isinstance(kept, Session)
    assert (kept.session_id, kept.started_at, kept.device_id) == ("ses_1", NOW, "dev_1")
    assert kept.acr == "AAL2"


def test_a_session_never_changes_its_user() -> None:
    assert put(session(), session(user_id="usr_2")) == "other_user"


def test_an_ended_session_stays_ended_unless_it_begins_anew() -> None:
    ended = session(ended_at=NOW + hours(1))
    assert put(ended, session(started_at=NOW + hours(1))) == "ended"
    anew = session(session_id="ses_2", started_at=NOW + hours(2), user_id="usr_2")
    assert put(ended, anew) == anew
    assert put(None, anew) == anew


def test_a_session_is_live_until_it_ends() -> None:
    assert session().is_live(NOW)
    assert not session(expires_at=NOW).is_live(NOW)
    assert not session(expires_at=NOW + hours(5), ended_at=NOW).is_live(NOW)


def test_a_session_identifier_names_issuer_and_sid() -> None:
    assert session_key(opaque("s1"), MDM) == (MDM, "s1")
    assert session_key(iss_sub(IDP, "s1"), MDM) == (IDP, "s1")
    assert session_key(email("tina@customer.example"), MDM) is None


def parse(body: object, sid: str = "s1", iss: str = IDP) -> Any:
    return parse_session(body, tenant_id=TENANT, iss=iss, sid=sid, now=NOW)


def test_a_session_is_read_whole() -> None:
    item = parse(
        {
            "user": "email:tina@customer.example",
            "device": "LT-1",
            "app": "mail",
            "client": "c1",
            "amr": ["pwd", "hwk"],
            "acr": "AAL2",
            "started_at": 1_772_400_000,
            "expires_at": "2026-03-03T00:00:00Z",
            "cookie_sha256": "ab" * 32,
            "unknown": 1,
        }
    )
    assert item.user == [TINA]
    assert item.device == [LAPTOP]
    assert item.started_at == datetime.fromtimestamp(1_772_400_000, tz=UTC)
    assert item.expires_at == datetime(2026, 3, 3, tzinfo=UTC)
    assert item.amr == ("pwd", "hwk")


def test_a_session_may_name_known_things_by_id() -> None:
    item = parse({"user": "usr_01", "device": "dev_01"})
    assert (item.user, item.device) == ("usr_01", "dev_01")


def test_a_session_begins_no_later_than_it_is_reported() -> None:
    assert parse({"user": TINA, "started_at": "2027-01-01T00:00:00Z"}).started_at == NOW
    assert parse({"user": TINA}).started_at == NOW


@pytest.mark.parametrize(
    "change",
    [
        {"user": None},
        {"user": "nobody"},
        {"user": pair(TINA, LAPTOP)},
        {"device": ""},
        {"device": 7},
        {"app": 7},
        {"client": "x" * 201},
        {"acr": "a\nb"},
        {"amr": "pwd"},
        {"amr": ["x"] * 21},
        {"amr": [7]},
        {"started_at": "yesterday"},
        {"started_at": "2026-03-02T10:00:00"},
        {"started_at": -1},
        {"started_at": True},
        {"started_at": []},
        {"expires_at": 1_000_000_000},
        {"cookie_sha256": "AB" * 32},
        {"cookie_sha256": 7},
    ],
)
def test_a_broken_session_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        parse({"user": TINA} | change)
    assert refused.value.pointers


@pytest.mark.parametrize(("sid", "iss"), [("", IDP), ("s", ""), ("é" * 300, IDP), ("a\0b", IDP)])
def test_the_key_of_a_session_is_bounded(sid: str, iss: str) -> None:
    with pytest.raises(Invalid):
        parse({"user": TINA}, sid=sid, iss=iss)


def test_a_session_body_is_an_object() -> None:
    with pytest.raises(Invalid):
        parse([])


def test_a_time_keeps_its_moment() -> None:
    assert parse_moment(None, "at") is None
    assert parse_moment("2026-03-02T11:00:00+01:00", "at") == datetime(2026, 3, 2, 10, tzinfo=UTC)


def test_a_rendered_session_keeps_the_cookie_hash_inside() -> None:
    shown = render_session(
        replace(session(), cookie_sha256="ab" * 32, expires_at=NOW + timedelta(days=1)), NOW
    )
    assert "cookie_sha256" not in shown
    assert shown["live"] is True
    assert "ended_at" not in shown
