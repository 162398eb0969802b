"""The identity provider: sign-ins, SCIM to the letter, strict revocation."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from conformance.peers.errors import FilterError, SCIMError
from conformance.peers.groups import PATCH_SCHEMA, Group, Operation, PatchRequest, patched
from conformance.peers.scim_filter import holds, parse_filter
from tests.conformance.conftest import Running, running
from tests.conformance.stand_in import TOKEN, StandIn

pytestmark = pytest.mark.scenario

SCIM_TOKEN = "scim-secret"
QUARANTINE = "grp-quarantine"
SCIM_HEADERS = {
    "authorization": f"Bearer {SCIM_TOKEN}",
    "content-type": "application/scim+json",
}
CASES = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One running IdP with a group and three users of one test's own."""

    peer: Running
    group: str
    one: str
    two: str
    three: str
    since: int

    def post(self, path: str, body: object = None, **headers: str) -> httpx2.Response:
        return self.peer.post(path, body, **headers)

    def ledger(self, **wanted: object) -> list[dict[str, Any]]:
        return self.peer.ledger(after=self.since, **wanted)

    def get(self, path: str, **params: str) -> httpx2.Response:
        return self.peer.http.get(f"/scim/v2{path}", params=params, headers=SCIM_HEADERS)

    def patch(self, *operations: dict[str, Any], group: str | None = None) -> httpx2.Response:
        body = {"schemas": [PATCH_SCHEMA], "Operations": operations}
        return self.patch_text(json.dumps(body), group=group)

    def patch_text(
        self, content: str, *, group: str | None = None, media_type: str = "application/scim+json"
    ) -> httpx2.Response:
        headers = {**SCIM_HEADERS, "content-type": media_type}
        path = f"/scim/v2/Groups/{group or self.group}"
        return self.peer.http.patch(path, content=content, headers=headers)

    def members(self) -> list[str]:
        path = f"/control/groups/{self.group}"
        members: list[str] = self.peer.http.get(path).json()["members"]
        return members


@pytest.fixture(scope="module")
def peer(hub: StandIn) -> Iterator[Running]:
    options = {
        "hub": hub.issuer,
        "hub_token": TOKEN,
        "scim_token": SCIM_TOKEN,
        "client_id": "app-1",
    }
    with running("idp", "--config", json.dumps(options)) as started:
        yield started


@pytest.fixture
def idp(peer: Running) -> Scene:
    case = next(CASES)
    users = [f"u-{case}-{number}" for number in (1, 2, 3)]
    for user in users:
        peer.post(
            "/control/users",
            {"id": user, "email": f"{user}@green.example", "external_id": f"ext-{user}"},
        )
    group = f"grp-{case}"
    peer.post("/control/groups", {"id": group, "display_name": f"Group {case}"})
    peer.post("/control/fault", {"mode": "ok"})
    since = max(entry["number"] for entry in peer.ledger())
    one, two, three = users
    return Scene(peer=peer, group=group, one=one, two=two, three=three, since=since)


def _add(user: str) -> dict[str, Any]:
    return {"op": "add", "path": "members", "value": [{"value": user}]}


def _remove(user: str) -> dict[str, Any]:
    return {"op": "remove", "path": f'members[value eq "{user}"]'}


def test_a_session_is_registered_at_the_hub_before_the_answer(idp: Scene, hub: StandIn) -> None:
    answer = idp.post("/control/sessions", {"user": idp.one, "device": "laptop"})
    assert answer.status_code == 201
    registered = hub.sessions[answer.json()["sid"]]
    assert registered["user"] == {"format": "email", "email": f"{idp.one}@green.example"}
    assert registered["device"] == "laptop"
    assert registered["iss"] == idp.peer.urls["issuer"]
    assert registered["started_at"].endswith("+00:00")


def test_a_browser_signs_in_on_a_device_and_its_session_has_a_cookie(
    idp: Scene, hub: StandIn
) -> None:
    fields = {"user": idp.one, "device": "laptop"}
    page = idp.peer.http.post("/sign-in", data=fields)
    assert page.status_code == 200
    (session,) = idp.peer.http.get("/sessions", params=fields).json()
    registered = hub.sessions[session["sid"]]
    assert registered["device"] == "laptop"
    value = page.cookies["session"]
    assert registered["cookie_sha256"] == hashlib.sha256(value.encode()).hexdigest()
    idp.peer.http.cookies.clear()


def test_a_quarantined_user_cannot_sign_in_until_released(idp: Scene) -> None:
    sign_in = {"user": f"{idp.one}@green.example", "device": "laptop", "register": False}
    assert idp.post("/login", sign_in).status_code == 200
    assert idp.patch(_add(idp.one), group=QUARANTINE).status_code == 204
    denied = idp.post("/login", sign_in)
    assert denied.status_code == 403
    assert denied.json()["reason"] == "quarantined"
    assert idp.post("/login", {**sign_in, "user": idp.two}).status_code == 200
    assert idp.patch(_remove(idp.one), group=QUARANTINE).status_code == 204
    assert idp.post("/login", sign_in).status_code == 200
    assert idp.post("/login", {"user": "nobody@x.example"}).status_code == 403


def test_adding_a_member_twice_has_one_effect(idp: Scene) -> None:
    assert idp.patch(_add(idp.one)).status_code == 204
    assert idp.patch(_add(idp.one)).status_code == 204
    assert idp.members() == [idp.one]
    outcomes = [e["outcome"] for e in idp.ledger(what="scim.member_added", user=idp.one)]
    assert outcomes == ["effect", "repeat"]


def test_removing_a_non_member_has_no_target(idp: Scene) -> None:
    answer = idp.patch(_remove(idp.one))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/scim+json"
    assert answer.json()["scimType"] == "noTarget"
    assert answer.json()["status"] == "400"


def test_an_unfiltered_remove_empties_the_group_and_is_written_down_as_a_disaster(
    idp: Scene,
) -> None:
    idp.patch(_add(idp.one))
    idp.patch(_add(idp.two))
    value_array = {"op": "remove", "path": "members", "value": [{"value": idp.one}]}
    assert idp.patch(value_array).status_code == 204
    assert idp.members() == []
    [disaster] = idp.ledger(what="scim.group_emptied")
    assert disaster["disaster"] is True
    assert disaster["members"] == [idp.one, idp.two]


def test_a_patch_is_all_or_nothing(idp: Scene) -> None:
    assert idp.patch(_add(idp.one), _remove(idp.two)).status_code == 400
    assert idp.members() == []
    assert idp.ledger(what="scim.member") == []


def test_scim_asks_for_its_token_and_media_type(idp: Scene) -> None:
    refused = idp.peer.http.get("/scim/v2/Users", headers={"authorization": "Bearer other"})
    assert refused.status_code == 401
    assert "www-authenticate" in refused.headers
    assert idp.patch_text("{}", media_type="text/plain").status_code == 415
    assert idp.patch_text("{").status_code == 400
    assert idp.patch(_add(idp.one), group="none").status_code == 404


def test_users_are_found_by_filter(idp: Scene) -> None:
    found = idp.get("/Users", filter=f'userName eq "{idp.one.upper()}@green.example"').json()
    assert found["totalResults"] == 1
    assert found["Resources"][0]["id"] == idp.one
    assert found["Resources"][0]["externalId"] == f"ext-{idp.one}"
    none = idp.get("/Users", filter='externalId eq "nobody"')
    assert none.status_code == 200
    assert "Resources" not in none.json()
    assert idp.get("/Users", filter="userName pr").json()["scimType"] == "invalidFilter"


def test_attributes_and_pages_are_honoured(idp: Scene) -> None:
    page = idp.get("/Users", attributes="userName", startIndex="2", count="1").json()
    assert page["totalResults"] >= 3
    assert page["itemsPerPage"] == 1
    assert page["Resources"][0].keys() == {"schemas", "id", "userName"}
    assert "members" not in idp.get(f"/Groups/{idp.group}", excludedAttributes="members").json()


def test_membership_shows_in_every_view(idp: Scene) -> None:
    idp.patch(_add(idp.one))
    assert idp.get(f"/Users/{idp.one}").json()["groups"][0]["value"] == idp.group
    assert idp.get(f"/Groups/{idp.group}").json()["members"] == [{"value": idp.one, "type": "User"}]
    both = f'id eq "{idp.group}" and members.value eq "{idp.one}"'
    assert idp.get("/Groups", filter=both).json()["totalResults"] == 1
    other = f'members.value eq "{idp.two}"'
    assert idp.get(f"/Groups/{idp.group}", filter=other).json()["totalResults"] == 0
    assert idp.get("/Users/none").status_code == 404
    assert idp.get("/ServiceProviderConfig").json()["patch"]["supported"] is True


def _revoke(idp: Scene, token: str, subject: object) -> httpx2.Response:
    return idp.post(
        "/global-token-revocation", {"sub_id": subject}, Authorization=f"Bearer {token}"
    )


def test_revocation_ends_all_sessions_of_the_user_once(idp: Scene, hub: StandIn) -> None:
    for user, device in ((idp.one, "laptop"), (idp.one, "phone"), (idp.two, "desktop")):
        idp.post("/control/sessions", {"user": user, "device": device})
    subject = {"format": "iss_sub", "iss": idp.peer.urls["issuer"], "sub": idp.one}
    url = idp.peer.urls["gtr_url"]
    first = _revoke(idp, hub.gtr_token(url, jti="gtr-1"), subject)
    assert (first.status_code, first.content) == (204, b"")
    assert idp.peer.alive(idp.one) == []
    assert idp.peer.alive(idp.two) == ["desktop"]
    again = _revoke(
        idp, hub.gtr_token(url), {"format": "email", "email": f"{idp.one}@green.example"}
    )
    assert again.status_code == 204
    ended = idp.ledger(what="session.ended")
    assert {(e["device"], e["request_id"], e["outcome"]) for e in ended} == {
        ("laptop", "gtr-1", "effect"),
        ("phone", "gtr-1", "effect"),
    }
    assert [e["outcome"] for e in idp.ledger(what="gtr.accepted")] == ["effect", "repeat"]


def test_each_broken_revocation_token_is_refused_with_401(idp: Scene, hub: StandIn) -> None:
    url = idp.peer.urls["gtr_url"]
    subject = {"format": "email", "email": f"{idp.one}@green.example"}
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


def test_a_revocation_token_is_taken_once(idp: Scene, hub: StandIn) -> None:
    token = hub.gtr_token(idp.peer.urls["gtr_url"])
    subject = {"format": "email", "email": f"{idp.one}@green.example"}
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
    idp: Scene, hub: StandIn, subject: dict[str, str], status: int
) -> None:
    answer = _revoke(idp, hub.gtr_token(idp.peer.urls["gtr_url"]), subject)
    assert answer.status_code == status


def test_the_revocation_body_has_one_member(idp: Scene, hub: StandIn) -> None:
    token = hub.gtr_token(idp.peer.urls["gtr_url"])
    answer = idp.post(
        "/global-token-revocation",
        {"subject": {"format": "email", "email": f"{idp.one}@green.example"}},
        Authorization=f"Bearer {token}",
    )
    assert answer.status_code == 400


def test_an_idp_that_is_down_answers_again_when_the_fault_is_over(idp: Scene, hub: StandIn) -> None:
    idp.post("/control/fault", {"mode": "status", "status": 503, "retry_after_s": 1, "count": 1})
    down = idp.get("/Users")
    assert (down.status_code, down.headers["retry-after"]) == (503, "1")
    assert idp.get("/Users").status_code == 200
    idp.post("/control/fault", {"mode": "status", "paths": ["/scim/"]})
    assert idp.get("/Users").status_code == 503
    assert idp.post("/login", {"user": idp.two, "register": False}).status_code == 200


def test_a_lost_answer_leaves_the_effect(idp: Scene) -> None:
    idp.post("/control/fault", {"mode": "lost_answer", "status": 502, "count": 1})
    assert idp.patch(_add(idp.three)).status_code == 502
    assert idp.members() == [idp.three]
    assert idp.patch(_add(idp.three)).status_code == 204
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
