"""SCIM as a client: a body that empties a group cannot be made, answers are read leniently."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions import scim
from actions.model import SCIMDialect, SCIMSetting
from actions.outcomes import OutcomeClass
from actions.scim import SCIMService, UserLookup

SERVICE = SCIMService(
    setting=SCIMSetting(base_url="https://idp.example/scim/v2/", quarantine_group_id="g1"),
    token="secret",
)
PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
IDS = st.text(min_size=1, max_size=40)


@pytest.mark.requirement("SCC-1", "SCC-3", "SCC-5")
def test_a_user_is_looked_up_by_an_escaped_and_encoded_filter() -> None:
    request = scim.build_lookup(SERVICE, 'ro"sa\\@green.example')

    parts = urlsplit(request.url)
    assert parts.path == "/scim/v2/Users"
    assert parse_qs(parts.query)["filter"] == [r'userName eq "ro\"sa\\@green.example"']
    assert "members" not in request.url
    assert request.headers["authorization"] == "Bearer secret"
    assert " " not in request.url


@pytest.mark.requirement("SCC-7", "SCC-8")
def test_adding_names_the_user_by_scim_id() -> None:
    request = scim.build_add(SERVICE, "g 1/x", "2a91")

    assert request.method == "PATCH"
    assert urlsplit(request.url).path == "/scim/v2/Groups/g%201%2Fx"
    assert request.headers["content-type"] == "application/scim+json"
    assert json.loads(request.body) == {
        "schemas": [PATCH_OP],
        "Operations": [{"op": "add", "path": "members", "value": [{"value": "2a91"}]}],
    }


@pytest.mark.requirement("SCC-9")
def test_removing_names_the_member_in_the_path_and_has_no_value() -> None:
    body = json.loads(scim.build_remove(SERVICE, "g1", "2a91").body)

    assert body["Operations"] == [{"op": "remove", "path": 'members[value eq "2a91"]'}]


@pytest.mark.requirement("SCC-11")
def test_the_value_array_dialect_is_spoken_only_when_it_is_set() -> None:
    body = scim.render_remove("2a91", SCIMDialect.VALUE_ARRAY)

    assert body["Operations"] == [{"op": "remove", "path": "members", "value": [{"value": "2a91"}]}]
    assert SERVICE.setting.dialect is SCIMDialect.FILTER


@pytest.mark.requirement("SCC-9", "SCC-11", "SCC-12", "EGW-74")
@given(user_id=st.text(max_size=600), dialect=st.sampled_from(SCIMDialect))
def test_no_removal_can_ever_empty_a_group(user_id: str, dialect: SCIMDialect) -> None:
    try:
        body = scim.render_remove(user_id, dialect)
    except ValueError:
        return
    # One user per request, by their id; nobody's whole list is ever replaced.
    (operation,) = body["Operations"]
    assert operation["op"] == "remove"
    if operation["path"] == "members":
        assert dialect is SCIMDialect.VALUE_ARRAY
        assert [list(entry) for entry in operation["value"]] == [["value"]]
        assert operation["value"][0]["value"]
    else:
        literal = operation["path"].removeprefix("members[value eq ").removesuffix("]")
        assert json.loads(literal) == user_id
        assert "value" not in operation


@pytest.mark.parametrize("user_id", ["", "x" * 513])
def test_an_unusable_id_is_refused(user_id: str) -> None:
    with pytest.raises(ValueError, match="SCIM id"):
        scim.build_add(SERVICE, "g1", user_id)


@pytest.mark.parametrize("user_id", [".", ".."])
def test_an_id_cannot_climb_the_path(user_id: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        scim.build_user_read(SERVICE, user_id)


@given(user_id=IDS)
def test_an_id_stays_one_segment_of_the_path(user_id: str) -> None:
    if user_id in {".", ".."} or any(0xD800 <= ord(char) <= 0xDFFF for char in user_id):
        return
    path = urlsplit(scim.build_user_read(SERVICE, user_id).url).path
    assert path.count("/") == "/scim/v2/Users/x".count("/")


@pytest.mark.requirement("SCC-4")
@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"totalResults": 0}, UserLookup(matches=0)),
        ({"totalResults": 2, "Resources": [{"id": "1"}, {"id": "2"}]}, UserLookup(matches=2)),
        ({"totalResults": 1, "Resources": [{"id": "1"}, {"id": "2"}]}, UserLookup(matches=2)),
        (
            {"totalResults": 1, "Resources": [{"id": "2a91", "groups": [{"value": "g1"}]}]},
            UserLookup(matches=1, user_id="2a91", group_ids=frozenset({"g1"})),
        ),
        (
            {"totalResults": 1, "Resources": [{"id": "2a91"}]},
            UserLookup(matches=1, user_id="2a91", group_ids=None),
        ),
        ({"totalResults": 1, "Resources": [{}]}, None),
        ({"totalResults": True}, None),
        ([], None),
    ],
)
def test_a_lookup_answer_is_read(document: Any, found: UserLookup | None) -> None:
    assert scim.parse_lookup(json.dumps(document).encode()) == found


@pytest.mark.requirement("SCC-4", "SCC-17")
@pytest.mark.parametrize(
    ("lookup", "klass"),
    [
        (None, OutcomeClass.PERMANENT),
        (UserLookup(matches=0), OutcomeClass.PERMANENT),
        (UserLookup(matches=2), OutcomeClass.PERMANENT),
        (UserLookup(matches=1, user_id="1"), OutcomeClass.ADVANCE),
    ],
)
def test_nobody_or_several_is_a_refusal_to_act(
    lookup: UserLookup | None, klass: OutcomeClass
) -> None:
    assert scim.classify_lookup(200, lookup).klass is klass


@pytest.mark.requirement("SCC-20")
def test_membership_is_asked_of_the_list_of_groups_without_its_members() -> None:
    request = scim.build_membership_query(SERVICE, "g1", "2a91")

    query = parse_qs(urlsplit(request.url).query)
    assert query == {
        "filter": ['id eq "g1" and members.value eq "2a91"'],
        "attributes": ["id"],
    }


@pytest.mark.parametrize(
    ("document", "member"),
    [
        ({"totalResults": 0}, False),
        ({"totalResults": 1, "Resources": [{"id": "g1"}]}, True),
        ({"totalResults": 1, "Resources": [{"id": "other"}]}, None),
        ({"id": "g1"}, None),
    ],
)
def test_a_membership_answer_that_proves_nothing_is_no_answer(
    document: Any,
    *,
    member: bool | None,
) -> None:
    assert scim.parse_membership(json.dumps(document).encode(), "g1") is member


@pytest.mark.requirement("SCC-10", "SCC-17")
@pytest.mark.parametrize(
    ("status", "added", "removed"),
    [
        (200, OutcomeClass.DONE, OutcomeClass.ADVANCE),
        (204, OutcomeClass.DONE, OutcomeClass.ADVANCE),
        (400, OutcomeClass.PERMANENT, OutcomeClass.ADVANCE),
        (401, OutcomeClass.CREDENTIALS, OutcomeClass.CREDENTIALS),
        (404, OutcomeClass.PERMANENT, OutcomeClass.ADVANCE),
        (409, OutcomeClass.TRANSIENT, OutcomeClass.TRANSIENT),
        (412, OutcomeClass.TRANSIENT, OutcomeClass.TRANSIENT),
        (429, OutcomeClass.TRANSIENT, OutcomeClass.TRANSIENT),
        (501, OutcomeClass.PERMANENT, OutcomeClass.PERMANENT),
        (503, OutcomeClass.TRANSIENT, OutcomeClass.TRANSIENT),
    ],
)
def test_each_answer_to_a_change_has_one_meaning(
    status: int, added: OutcomeClass, removed: OutcomeClass
) -> None:
    assert scim.classify_add(status, None).klass is added
    assert scim.classify_remove(status, None).klass is removed


@pytest.mark.requirement("SCC-16")
def test_the_error_that_says_nobody_was_there_is_recognised() -> None:
    assert scim.is_no_target(b'{"status":"400","scimType":"noTarget"}')
    assert not scim.is_no_target(b'{"status":"400","scimType":"invalidPath"}')
    assert not scim.is_no_target(b"<html>")


@given(body=st.binary(max_size=200), status=st.integers(-5, 700))
def test_no_answer_breaks_the_reader(body: bytes, status: int) -> None:
    scim.classify_lookup(200, scim.parse_lookup(body))
    scim.parse_membership(body, "g1")
    scim.parse_groups_of_user(body)
    scim.is_no_target(body)
    assert scim.classify_add(status, None).klass in OutcomeClass
    assert scim.classify_remove(status, None).klass in OutcomeClass
