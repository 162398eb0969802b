"""The identity provider: sign-ins, SCIM to the letter, strict revocation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from conformance.peers.errors import FilterError, SCIMError
from conformance.peers.groups import PATCH_SCHEMA, Group, Operation, PatchRequest, patched
from conformance.peers.scim_filter import holds, parse_filter
from tests.conformance.conftest import Running, running
from tests.conformance.stand_in import TOKEN, StandIn

SCIM_TOKEN = "scim-secret"
GROUP = "grp-quarantine"
GROUP_PATH = f"/scim/v2/Groups/{GROUP}"
USERS = [
    {"id": "u-1", "email": "tina@green.example", "external_id": "tsmith"},
    {"id": "u-2", "email": "jim@green.example"},
    {"id": "u-3", "email": "rosa@green.example"},
]
SCIM_HEADERS = {
    "authorization": f"Bearer {SCIM_TOKEN}",
    "content-type": "application/scim+json",
}


@pytest.fixture
def idp(hub: StandIn) -> Iterator[Running]:
    options = {
        "hub": hub.issuer,
        "hub_token": TOKEN,
        "scim_token": SCIM_TOKEN,
        "users": USERS,
        "client_id": "app-1",
    }
    with running("idp", "--config", json.dumps(options)) as peer:
        yield peer


def _patch(idp: Running, *operations: dict[str, Any], path: str = GROUP_PATH) -> httpx2.Response:
    body = {"schemas": [PATCH_SCHEMA], "Operations": operations}
    return idp.http.patch(path, content=json.dumps(body), headers=SCIM_HEADERS)


def _add(user: str) -> dict[str, Any]:
    return {"op": "add", "path": "members", "value": [{"value": user}]}


def _remove(user: str) -> dict[str, Any]:
    return {"op": "remove", "path": f'members[value eq "{user}"]'}


def _members(idp: Running) -> list[str]:
    members: list[str] = idp.http.get(f"/control/groups/{GROUP}").json()["members"]
    return members


def _get(idp: Running, path: str, **params: str) -> httpx2.Response:
    return idp.http.get(f"/scim/v2{path}", params=params, headers=SCIM_HEADERS)


def test_a_session_is_registered_at_the_hub_before_the_answer(idp: Running, hub: StandIn) -> None:
    answer = idp.post("/control/sessions", {"user": "u-1", "device": "laptop"})
    assert answer.status_code == 201
    registered = hub.sessions[answer.json()["sid"]]
    assert registered["user"] == {"format": "email", "email": "tina@green.example"}
    assert registered["device"] == "laptop"
    assert registered["iss"] == idp.urls["issuer"]
    assert registered["started_at"].endswith("+00:00")


def test_a_quarantined_user_cannot_sign_in_until_released(idp: Running) -> None:
    sign_in = {"user": "tina@green.example", "device": "laptop", "register": False}
    assert idp.post("/login", sign_in).status_code == 200
    assert _patch(idp, _add("u-1")).status_code == 204
    denied = idp.post("/login", sign_in)
    assert denied.status_code == 403
    assert denied.json()["reason"] == "quarantined"
    assert idp.post("/login", {**sign_in, "user": "u-2"}).status_code == 200
    assert _patch(idp, _remove("u-1")).status_code == 204
    assert idp.post("/login", sign_in).status_code == 200
    assert idp.post("/login", {"user": "nobody@x.example"}).status_code == 403


def test_adding_a_member_twice_has_one_effect(idp: Running) -> None:
    assert _patch(idp, _add("u-1")).status_code == 204
    assert _patch(idp, _add("u-1")).status_code == 204
    assert _members(idp) == ["u-1"]
    outcomes = [e["outcome"] for e in idp.ledger(what="scim.member_added", user="u-1")]
    assert outcomes == ["effect", "repeat"]


def test_removing_a_non_member_has_no_target(idp: Running) -> None:
    answer = _patch(idp, _remove("u-1"))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/scim+json"
    assert answer.json()["scimType"] == "noTarget"
    assert answer.json()["status"] == "400"


def test_an_unfiltered_remove_empties_the_group_and_is_written_down_as_a_disaster(
    idp: Running,
) -> None:
    _patch(idp, _add("u-1"))
    _patch(idp, _add("u-2"))
    value_array = {"op": "remove", "path": "members", "value": [{"value": "u-1"}]}
    assert _patch(idp, value_array).status_code == 204
    assert _members(idp) == []
    [disaster] = idp.ledger(what="scim.group_emptied")
    assert disaster["disaster"] is True
    assert disaster["members"] == ["u-1", "u-2"]


def test_a_patch_is_all_or_nothing(idp: Running) -> None:
    assert _patch(idp, _add("u-1"), _remove("u-2")).status_code == 400
    assert _members(idp) == []
    assert idp.ledger(what="scim.member") == []


def test_scim_asks_for_its_token_and_media_type(idp: Running) -> None:
    refused = idp.http.get("/scim/v2/Users", headers={"authorization": "Bearer other"})
    assert refused.status_code == 401
    assert "www-authenticate" in refused.headers
    headers = {**SCIM_HEADERS, "content-type": "text/plain"}
    assert idp.http.patch(GROUP_PATH, content="{}", headers=headers).status_code == 415
    assert idp.http.patch(GROUP_PATH, content="{", headers=SCIM_HEADERS).status_code == 400
    assert _patch(idp, _add("u-1"), path="/scim/v2/Groups/none").status_code == 404


def test_users_are_found_by_filter(idp: Running) -> None:
    found = _get(idp, "/Users", filter='userName eq "TINA@green.example"').json()
    assert found["totalResults"] == 1
    assert found["Resources"][0]["id"] == "u-1"
    assert found["Resources"][0]["externalId"] == "tsmith"
    none = _get(idp, "/Users", filter='externalId eq "nobody"')
    assert none.status_code == 200
    assert "Resources" not in none.json()
    assert _get(idp, "/Users", filter="userName pr").json()["scimType"] == "invalidFilter"


def test_attributes_and_pages_are_honoured(idp: Running) -> None:
    page = _get(idp, "/Users", attributes="userName", startIndex="2", count="1").json()
    assert (page["totalResults"], page["itemsPerPage"]) == (3, 1)
    assert page["Resources"][0].keys() == {"schemas", "id", "userName"}
    assert "members" not in _get(idp, f"/Groups/{GROUP}", excludedAttributes="members").json()


def test_membership_shows_in_every_view(idp: Running) -> None:
    _patch(idp, _add("u-1"))
    assert _get(idp, "/Users/u-1").json()["groups"][0]["value"] == GROUP
    assert _get(idp, f"/Groups/{GROUP}").json()["members"] == [{"value": "u-1", "type": "User"}]
    both = f'id eq "{GROUP}" and members.value eq "u-1"'
    assert _get(idp, "/Groups", filter=both).json()["totalResults"] == 1
    other = 'members.value eq "u-2"'
    assert _get(idp, f"/Groups/{GROUP}", filter=other).json()["totalResults"] == 0
    assert _get(idp, "/Users/none").status_code == 404
    assert _get(idp, "/ServiceProviderConfig").json()["patch"]["supported"] is True


def _revoke(idp: Running, token: str, subject: object) -> httpx2.Response:
    return idp.post(
        "/global-token-revocation", {"sub_id": subject}, Authorization=f"Bearer {token}"
    )


def test_revocation_ends_all_sessions_of_the_user_once(idp: Running, hub: StandIn) -> None:
    for user, device in (("u-1", "laptop"), ("u-1", "phone"), ("u-2", "desktop")):
        idp.post("/control/sessions", {"user": user, "device": device})
    subject = {"format": "iss_sub", "iss": idp.urls["issuer"], "sub": "u-1"}
    url = idp.urls["gtr_url"]
    first = _revoke(idp, hub.gtr_token(url, jti="gtr-1"), subject)
    assert (first.status_code, first.content) == (204, b"")
    assert idp.alive("u-1") == []
    assert idp.alive("u-2") == ["desktop"]
    again = _revoke(idp, hub.gtr_token(url), {"format": "email", "email": "tina@green.example"})
    assert again.status_code == 204
    ended = idp.ledger(what="session.ended")
    assert {(e["device"], e["request_id"], e["outcome"]) for e in ended} == {
        ("laptop", "gtr-1", "effect"),
        ("phone", "gtr-1", "effect"),
    }
    assert [e["outcome"] for e in idp.ledger(what="gtr.accepted")] == ["effect", "repeat"]


def test_each_broken_revocation_token_is_refused_with_401(idp: Running, hub: StandIn) -> None:
    url = idp.urls["gtr_url"]
    subject = {"format": "email", "email": "tina@green.example"}
    broken = [
        hub.gtr_token(url, wrong_key=True),
        hub.gtr_token(url, typ="JWT"),
        hub.gtr_token(url, typ="secevent+jwt"),
        hub.gtr_token(url, iss="https://other.example"),
        hub.gtr_token(url + "/"),
        hub.gtr_token(url, aud=[url, "https://other.example"]),
        hub.gtr_token(url, sub="another-app"),
        hub.gtr_token(url, sub=None),
        hub.gtr_token(url, jti=None),
        hub.gtr_token(url, exp=None),
        hub.gtr_token(url, exp="soon"),
        hub.gtr_token(url, exp=1),
        hub.gtr_token(url, nbf=4_000_000_000),
        hub.gtr_token(url, exp=4_000_000_000),
        hub.gtr_token(url, events={}),
        "no.jwt",
    ]
    for token in broken:
        answer = _revoke(idp, token, subject)
        assert answer.status_code == 401, token
        assert "www-authenticate" in answer.headers
    assert idp.post("/global-token-revocation", {"sub_id": subject}).status_code == 401
    assert len(idp.ledger(what="gtr.refused", status=401)) == len(broken) + 1


def test_a_revocation_token_is_taken_once(idp: Running, hub: StandIn) -> None:
    token = hub.gtr_token(idp.urls["gtr_url"])
    subject = {"format": "email", "email": "tina@green.example"}
    assert _revoke(idp, token, subject).status_code == 204
    assert _revoke(idp, token, subject).status_code == 401


@pytest.mark.parametrize(
    ("subject", "status"),
    [
        ({"format": "phone_number", "phone_number": "+493012345678"}, 400),
        ({"format": "email"}, 400),
        ({"format": "iss_sub", "iss": "https://other.example", "sub": "u-1"}, 404),
        ({"format": "email", "email": "nobody@x.example"}, 404),
    ],
)
def test_subjects_that_name_nobody_or_nothing_understood(
    idp: Running, hub: StandIn, subject: dict[str, str], status: int
) -> None:
    answer = _revoke(idp, hub.gtr_token(idp.urls["gtr_url"]), subject)
    assert answer.status_code == status


def test_the_revocation_body_has_one_member(idp: Running, hub: StandIn) -> None:
    token = hub.gtr_token(idp.urls["gtr_url"])
    answer = idp.post(
        "/global-token-revocation",
        {"subject": {"format": "email", "email": "tina@green.example"}},
        Authorization=f"Bearer {token}",
    )
    assert answer.status_code == 400


def test_an_idp_that_is_down_answers_again_when_the_fault_is_over(
    idp: Running, hub: StandIn
) -> None:
    idp.post("/control/fault", {"mode": "status", "status": 503, "retry_after_s": 1, "count": 1})
    down = _get(idp, "/Users")
    assert (down.status_code, down.headers["retry-after"]) == (503, "1")
    assert _get(idp, "/Users").status_code == 200
    idp.post("/control/fault", {"mode": "status", "paths": ["/scim/"]})
    assert _get(idp, "/Users").status_code == 503
    assert idp.post("/login", {"user": "u-2", "register": False}).status_code == 200


def test_a_lost_answer_leaves_the_effect(idp: Running) -> None:
    idp.post("/control/fault", {"mode": "lost_answer", "status": 502, "count": 1})
    assert _patch(idp, _add("u-3")).status_code == 502
    assert _members(idp) == ["u-3"]
    assert _patch(idp, _add("u-3")).status_code == 204
    outcomes = [e["outcome"] for e in idp.ledger(what="scim.member_added")]
    assert outcomes == ["effect", "repeat"]


# --- the pure parts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('userName eq "A@b.example"', True),
        ('username EQ "c"', False),
        ('userName eq "c" or id eq "1"', True),
        ('userName eq "c" OR id eq "2"', False),
        ('id eq "1" and userName eq "a@B.example"', True),
        ('id eq "\\u0031"', True),
    ],
)
def test_filters_are_read_by_the_grammar(text: str, *, fits: bool) -> None:
    values = {"username": frozenset({"a@b.example"}), "id": frozenset({"1"})}
    assert holds(parse_filter(text), values) is fits


@pytest.mark.parametrize(
    "text", ["", "userName", 'userName sw "a"', 'id eq "1" x', 'id eq "1" and', 'id eq "1', "(" * 9]
)
def test_filters_that_are_not_understood_are_refused(text: str) -> None:
    with pytest.raises(FilterError):
        parse_filter(text)


def test_a_filter_about_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(FilterError):
        holds(parse_filter('shoeSize eq "44"'), {"id": frozenset()})


def _patched(*operations: Operation, schemas: tuple[str, ...] = (PATCH_SCHEMA,)) -> Group:
    group = Group(group_id="g", display_name="G", members=("a", "b"))
    request = PatchRequest(schemas=schemas, operations=operations)
    return patched(group, request, users={"a", "b", "c"})[0]


def test_replace_and_pathless_add_work_on_members() -> None:
    replaced = _patched(Operation(op="replace", path="members", value=[{"value": "c"}]))
    assert replaced.members == ("c",)
    added = _patched(
        Operation(op="add", value={"members": [{"value": "c"}], "displayName": "Other"})
    )
    assert (added.members, added.display_name) == (("a", "b", "c"), "Other")
    renamed = _patched(Operation(op="replace", path="displayName", value="Name"))
    assert renamed.display_name == "Name"


@pytest.mark.parametrize(
    ("operation", "scim_type"),
    [
        (Operation(op="add", path="members", value=[{"value": "nobody"}]), "invalidValue"),
        (Operation(op="add", path="members", value=["a"]), "invalidValue"),
        (Operation(op="add", value="a"), "invalidValue"),
        (Operation(op="add", value={"nothing": 1}), "invalidPath"),
        (Operation(op="add", path="nothing", value=1), "invalidPath"),
        (Operation(op="remove"), "noTarget"),
        (Operation(op="remove", path='members[display eq "a"]'), "invalidPath"),
    ],
)
def test_operations_outside_the_rfc_are_refused(operation: Operation, scim_type: str) -> None:
    with pytest.raises(SCIMError) as refusal:
        _patched(operation)
    assert refusal.value.scim_type == scim_type


def test_a_patch_needs_its_schema_and_operations() -> None:
    for request in (PatchRequest(schemas=(), operations=()),):
        with pytest.raises(SCIMError):
            patched(Group(group_id="g", display_name="G"), request, users=set())
    with pytest.raises(SCIMError):
        _patched()
