"""Tests of ssf.subject and its formats."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import SubjectError
from ssf.subject import (
    AliasesSubject,
    ComplexSubject,
    SimpleSubject,
    Subject,
    complex_subject,
    email,
    iss_sub,
    matches,
    normal_form,
    opaque,
    parse_subject,
    phone_number,
    render_subject,
    simple_members,
    unprocessable_members,
)
from tests.ssf.kit import JSON_VALUES, SIMPLE_SUBJECTS, SUBJECTS, Vector

USER = {"format": "email", "email": "rosa@green.example"}
DEVICE = {"format": "opaque", "id": "LT-1"}


def simple(**members: Any) -> SimpleSubject:
    subject = parse_subject({name.replace("__", "-"): value for name, value in members.items()})
    assert isinstance(subject, SimpleSubject)
    return subject


def refusal(obj: object, *, legacy: bool = False) -> SubjectError:
    with pytest.raises(SubjectError) as caught:
        parse_subject(obj, legacy=legacy)
    return caught.value


# --- reading and writing


@pytest.mark.requirement(
    "SUB-1",
    "SUB-2",
    "SUB-3",
    "SUB-4",
    "SUB-5",
    "SUB-6",
    "SUB-7",
    "SUB-8",
    "SUB-9",
    "SUB-10",
    "SUB-11",
    "SUB-12",
    "SUB-30",
    "INT-14",
    "EGW-43",
)
@pytest.mark.parametrize("position", range(13))
def test_every_example_renders_to_what_was_read(position: int, vector: Vector) -> None:
    example = vector(22)[position]
    assert render_subject(parse_subject(example)) == example


@given(SUBJECTS)
def test_parsing_what_was_rendered_gives_the_same_subject(subject: Subject) -> None:
    rendered = render_subject(subject)
    assert parse_subject(rendered) == subject
    assert hash(parse_subject(json.loads(json.dumps(rendered)))) == hash(subject)


@given(
    JSON_VALUES
    | st.dictionaries(
        st.sampled_from(["format", "user", "identifiers", "id", "email"]),
        JSON_VALUES | st.sampled_from(["complex", "aliases", "email", "opaque"]),
    ),
    st.booleans(),
)
def test_any_json_value_is_a_subject_or_a_subject_error(obj: object, legacy: bool) -> None:  # noqa: FBT001 - drawn
    with suppress(SubjectError):
        render_subject(parse_subject(obj, legacy=legacy))


@pytest.mark.requirement("SUB-20", "SET-59")
@pytest.mark.parametrize(
    "obj",
    [
        None,
        7,
        "email",
        [],
        {},
        {"email": "a@b"},
        {"format": ""},
        {"format": 7},
        {"format": "f" * 200},
        {1: 2},
    ],
)
def test_a_subject_is_an_object_with_a_format(obj: object) -> None:
    assert refusal(obj).requirement in {"SUB-20", "SET-59"}


@pytest.mark.requirement("SET-59")
@pytest.mark.parametrize(
    ("requirement", "obj"),
    [
        ("SUB-1", {"format": "account"}),
        ("SUB-1", {"format": "account", "uri": "mailto:a@b"}),
        ("SUB-2", {"format": "email", "email": None}),
        ("SUB-2", {"format": "email", "email": ""}),
        ("SUB-2", {"format": "email", "email": ["a@b"]}),
        ("SUB-2", {"format": "email", "email": "rosa"}),
        ("SUB-2", {"format": "email", "email": "Rosa <rosa@green.example>"}),
        ("SUB-2", {"format": "email", "email": "a@" + "b" * 5000}),
        ("SUB-3", {"format": "iss_sub", "iss": "https://a"}),
        ("SUB-3", {"format": "iss_sub", "iss": "https://a", "sub": 7}),
        ("SUB-4", {"format": "opaque", "ID": "x"}),
        ("SUB-5", {"format": "phone_number", "phone_number": "030 1234567"}),
        ("SUB-5", {"format": "phone_number", "phone_number": "+1234567890123456"}),
        ("SUB-6", {"format": "did", "did": "did:example:1"}),
        ("SUB-6", {"format": "did", "url": "example:1"}),
        ("SUB-7", {"format": "uri", "uri": "no scheme"}),
        ("SUB-8", {"format": "aliases"}),
        ("SUB-8", {"format": "aliases", "identifiers": []}),
        ("SUB-8", {"format": "aliases", "identifiers": [USER] * 101}),
        (
            "SUB-8",
            {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [USER]}]},
        ),
        ("SUB-8", {"format": "aliases", "identifiers": [{"format": "complex", "user": USER}]}),
        ("SUB-9", {"format": "jwt_id", "iss": "a"}),
        ("SUB-10", {"format": "saml_assertion_id", "iss": "a", "assertion_id": "b"}),
        ("SUB-11", {"format": "ip-addresses", "ip_addresses": ["192.0.2.1"]}),
        ("SUB-11", {"format": "ip-addresses", "ip-addresses": []}),
        ("SUB-11", {"format": "ip-addresses", "ip-addresses": "192.0.2.1"}),
        ("SUB-11", {"format": "ip-addresses", "ip-addresses": [3221225985]}),
        ("SUB-11", {"format": "ip-addresses", "ip-addresses": ["192.0.2.256"]}),
        ("SUB-12", {"format": "scim", "externalId": "x"}),
        ("SUB-30", {"format": "complex"}),
        ("SUB-30", {"format": "complex", "note": "nobody"}),
        ("SUB-30", {"format": "complex", "user": {"format": "complex", "user": USER}}),
        ("SET-59", {"format": "complex", "user": "rosa"}),
        ("SUB-20", {"format": "complex", "user": {"email": "a@b"}}),
        ("SUB-30", {"format": "complex"} | {f"m{n}": USER for n in range(51)}),
        ("SUB-13", {"format": "private"} | {f"m{n}": "x" for n in range(51)}),
        ("SET-59", {"format": "opaque", "id": "\0"}),
        ("SET-59", {"format": "opaque", "id": "\ud800"}),
        ("SET-59", {"format": "private", "id": object()}),
    ],
)
def test_a_broken_identifier_is_refused_by_the_row_of_its_format(
    requirement: str, obj: object
) -> None:
    assert refusal(obj).requirement == requirement


@pytest.mark.requirement("SET-17")
def test_extra_members_of_known_formats_are_ignored() -> None:
    assert parse_subject(USER | {"note": 1}) == email("rosa@green.example")
    complex_form = {"format": "complex", "user": USER, "note": "text", "extra": 5}
    assert parse_subject(complex_form) == complex_subject(user=email("rosa@green.example"))


@pytest.mark.requirement("SUB-13", "SET-59")
def test_an_unknown_format_is_kept_verbatim_and_matches_by_deep_equality() -> None:
    item = {"format": "catalog_item", "id": "7", "tags": ["a", {"b": 1}], "size": 1}
    subject = simple(**item)
    assert render_subject(subject) == item
    assert subject.get("id") == "7"
    assert subject.get("tags") is None
    assert matches(subject, simple(**dict(reversed(item.items()))))
    assert not matches(subject, simple(**item | {"size": 1.0}))
    assert not matches(subject, simple(**item | {"size": True}))


@pytest.mark.requirement("SUB-12")
def test_a_scim_subject_keeps_further_attributes_but_matches_by_path() -> None:
    one = simple(format="scim", uri="/Users/1", externalId="r", emails=["a@b"])
    assert one.get("externalId") == "r"
    assert matches(one, simple(format="scim", uri="/Users/1"))


@pytest.mark.requirement("SUB-30")
def test_aliases_may_stand_for_a_member_of_a_complex_subject() -> None:
    obj = {"format": "complex", "user": {"format": "aliases", "identifiers": [USER]}}
    subject = parse_subject(obj)
    assert render_subject(subject) == obj
    assert simple_members(subject) == (("user", email("rosa@green.example")),)


def test_constructors_check_what_they_make() -> None:
    assert iss_sub("https://a", "b").get("sub") == "b"
    assert opaque("st_1").get("id") == "st_1"
    assert phone_number("+493012345678").get("phone_number") == "+493012345678"
    assert isinstance(complex_subject(user=email("a@b.example")), ComplexSubject)
    for wrong in ("", "\0", "\ud800"):
        with pytest.raises(SubjectError):
            opaque(wrong)
    with pytest.raises(SubjectError):
        complex_subject()


@pytest.mark.requirement("SUB-32")
def test_simple_members_names_every_simple_subject_inside() -> None:
    user, device = email("rosa@green.example"), opaque("LT-1")
    assert simple_members(user) == ((None, user),)
    both = parse_subject({"format": "aliases", "identifiers": [USER, DEVICE]})
    assert isinstance(both, AliasesSubject)
    assert simple_members(both) == ((None, user), (None, device))
    assert simple_members(complex_subject(user=user, device=device)) == (
        ("device", device),
        ("user", user),
    )


@pytest.mark.requirement("SUB-33", "SET-60", "SSF-META-12")
def test_critical_members_that_nobody_defined_are_named() -> None:
    subject = complex_subject(user=email("a@b.example"), region=opaque("eu"))
    assert unprocessable_members(subject, frozenset({"region", "user"})) == {"region"}
    assert unprocessable_members(subject, frozenset({"user", "tenant"})) == frozenset()
    assert unprocessable_members(opaque("x"), frozenset({"region"})) == frozenset()


# --- older drafts


@pytest.mark.requirement("SUB-25", "RISC-25", "SET-10")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"subject_type": "email", "email": "a@b.example"}, email("a@b.example")),
        ({"subject_type": "iss-sub", "iss": "i", "sub": "s"}, iss_sub("i", "s")),
        ({"format": "iss-sub", "iss": "i", "sub": "s"}, iss_sub("i", "s")),
        ({"subject_type": "phone", "phone": "+4930123456"}, phone_number("+4930123456")),
        ({"format": "phone", "phone_number": "+4930123456"}, phone_number("+4930123456")),
        (
            {"user": USER, "device": DEVICE},
            complex_subject(user=email("rosa@green.example"), device=opaque("LT-1")),
        ),
        (
            {"user": {"subject_type": "email", "email": "a@b.example"}},
            complex_subject(user=email("a@b.example")),
        ),
        (
            {
                "format": "aliases",
                "identifiers": [{"subject_type": "email", "email": "a@b.example"}],
            },
            AliasesSubject(identifiers=(email("a@b.example"),)),
        ),
        (USER, email("rosa@green.example")),
    ],
)
def test_names_of_older_drafts_are_read_only_in_legacy_mode(
    old: dict[str, object], new: Subject
) -> None:
    assert parse_subject(old, legacy=True) == new
    if "format" in old and old["format"] != "aliases":
        # Without the switch a strange format stays what it says.
        assert render_subject(parse_subject(old)) == old
    else:
        refusal(old)


@pytest.mark.requirement("SUB-25")
@pytest.mark.parametrize("obj", [{}, {"id": "x"}, {"subject_type": 7}])
def test_legacy_mode_still_needs_a_format(obj: object) -> None:
    assert refusal(obj, legacy=True).requirement == "SUB-20"


@pytest.mark.requirement("RISC-25")
def test_subject_type_is_never_emitted() -> None:
    parsed = parse_subject({"subject_type": "email", "email": "a@b.example"}, legacy=True)
    assert "subject_type" not in render_subject(parsed)


# --- normal forms


@pytest.mark.requirement(
    "SUB-1",
    "SUB-2",
    "SUB-3",
    "SUB-4",
    "SUB-5",
    "SUB-6",
    "SUB-7",
    "SUB-9",
    "SUB-10",
    "SUB-11",
    "SUB-12",
)
@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (
            {"format": "account", "uri": "ACCT:Rosa@Green.Example"},
            "account:acct:Rosa@green.example",
        ),
        (
            {"format": "email", "email": "Rosa.Lind+x@GREEN.example"},
            "email:rosa.lind+x@green.example",
        ),
        ({"format": "email", "email": "rosa@Bücher.example"}, "email:rosa@xn--bcher-kva.example"),
        ({"format": "email", "email": "rosa@Ü..example"}, "email:rosa@ü..example"),
        ({"format": "iss_sub", "iss": "https://A/", "sub": "U"}, "iss_sub:https://A/|U"),
        ({"format": "opaque", "id": "LT-1"}, "opaque:LT-1"),
        (
            {"format": "phone_number", "phone_number": "+1 (206) 555.01-23"},
            "phone_number:+12065550123",
        ),
        ({"format": "did", "url": "did:example:1#k"}, "did:did:example:1#k"),
        ({"format": "uri", "uri": "urn:Uuid:X"}, "uri:urn:Uuid:X"),
        ({"format": "jwt_id", "iss": "a|b", "jti": "c%"}, "jwt_id:a%7Cb|c%25"),
        (
            {"format": "saml_assertion_id", "issuer": "i", "assertion_id": "_a"},
            "saml_assertion_id:i|_a",
        ),
        (
            {
                "format": "ip-addresses",
                "ip-addresses": ["2001:DB8:0::24", "192.0.2.1", "2001:db8::24"],
            },
            "ip-addresses:192.0.2.1,2001:db8::24",
        ),
        ({"format": "scim", "uri": "/Users/1", "id": "1"}, "scim:/Users/1"),
        ({"format": "a:b", "x": 1}, 'a%3Ab:{"format":"a:b","x":1}'),
    ],
)
def test_the_normal_form_is_one_stable_text(obj: dict[str, object], expected: str) -> None:
    subject = parse_subject(obj)
    assert isinstance(subject, SimpleSubject)
    assert normal_form(subject) == expected


@pytest.mark.requirement("SUB-41")
@given(SIMPLE_SUBJECTS)
def test_a_normal_form_is_bounded_and_names_its_format_first(subject: SimpleSubject) -> None:
    text = normal_form(subject)
    assert len(text) <= 512
    assert text.partition(":")[0] == subject.format


def test_long_values_are_replaced_by_a_digest_that_no_short_value_can_imitate() -> None:
    long_form = normal_form(opaque("x" * 600))
    assert long_form.startswith("opaque:sha256:")
    imitation = opaque(long_form.removeprefix("opaque:"))
    assert normal_form(imitation) != long_form
    assert normal_form(opaque("x" * 505)) == "opaque:" + "x" * 505


# --- matching


@pytest.mark.requirement("SUB-41")
def test_simple_subjects_match_when_their_normal_forms_are_equal() -> None:
    assert matches(email("Rosa@Green.example"), email("rosa@green.EXAMPLE"))
    assert not matches(email("rosa@green.example"), email("max@green.example"))
    assert not matches(opaque("a"), simple(format="uri", uri="a:a"))


@pytest.mark.requirement("SUB-42", "SUB-43", "EGW-44")
def test_an_absent_member_of_a_complex_subject_is_a_wildcard_in_both_directions() -> None:
    tenant, user, device = opaque("green"), email("r@green.example"), opaque("LT-1")
    assert matches(complex_subject(tenant=tenant), complex_subject(tenant=tenant, user=user))
    assert matches(complex_subject(user=user, device=device), complex_subject(user=user))
    assert not matches(
        complex_subject(user=user, device=device), complex_subject(user=user, device=opaque("LT-2"))
    )


@pytest.mark.requirement("SUB-43")
def test_complex_subjects_without_a_common_member_match_only_by_the_letter() -> None:
    one, other = complex_subject(user=opaque("u")), complex_subject(device=opaque("d"))
    assert not matches(one, other)
    assert matches(one, other, strict_spec=True)


@pytest.mark.requirement("SUB-44")
def test_a_simple_subject_matches_a_complex_one_that_contains_it() -> None:
    user = email("r@green.example")
    both = complex_subject(user=user, device=opaque("LT-1"))
    assert matches(user, both)
    assert matches(both, user)
    assert not matches(opaque("LT-2"), both)


@pytest.mark.requirement("SUB-45", "SUB-8", "EGW-45")
def test_aliases_match_by_any_of_their_identifiers() -> None:
    aliases = parse_subject({"format": "aliases", "identifiers": [USER, DEVICE]})
    assert matches(aliases, opaque("LT-1"))
    assert matches(email("rosa@green.example"), aliases)
    assert matches(complex_subject(user=email("rosa@green.example")), aliases)
    assert not matches(aliases, opaque("LT-2"))
    inside = parse_subject(
        {"format": "complex", "user": {"format": "aliases", "identifiers": [USER, DEVICE]}}
    )
    assert matches(inside, complex_subject(user=opaque("LT-1")))


@pytest.mark.requirement("SUB-40")
@given(SUBJECTS, SUBJECTS)
def test_matching_is_reflexive_and_symmetric(one: Subject, other: Subject) -> None:
    assert matches(one, one)
    assert matches(one, other) == matches(other, one)
