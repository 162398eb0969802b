"""Which identifier of a user an app is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.subjects import find_identifier, naming_value, next_subject, scim_value
from tests.actions.kit import EMAIL, ISS_SUB

OPAQUE = {"format": "opaque", "id": "u1"}
FORMATS = st.sampled_from(["email", "iss_sub", "opaque", "phone_number", "aliases", "odd", ""])
JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
IDENTIFIER = st.dictionaries(
    st.sampled_from(["format", "email", "iss", "sub", "id"]), JSON | FORMATS, max_size=5
)


@pytest.mark.requirement("GTR-12", "GTR-24")
def test_the_first_format_of_the_app_that_the_user_has_is_taken() -> None:
    found = next_subject(
        [EMAIL, ISS_SUB], ("phone_number", "iss_sub", "email"), start=0, issuer=None
    )

    assert found == (1, ISS_SUB)


def test_the_search_goes_on_behind_a_refused_format() -> None:
    formats = ("iss_sub", "email")

    assert next_subject([EMAIL, ISS_SUB], formats, start=1, issuer=None) == (1, EMAIL)
    assert next_subject([EMAIL, ISS_SUB], formats, start=2, issuer=None) is None


def test_an_issuer_that_the_app_does_not_know_is_no_identifier() -> None:
    assert find_identifier([ISS_SUB], "iss_sub", issuer="https://other.example") is None
    assert find_identifier([ISS_SUB], "iss_sub", issuer=ISS_SUB["iss"]) == ISS_SUB


def test_a_directory_is_asked_by_the_value_it_keeps() -> None:
    assert scim_value([ISS_SUB, EMAIL], "userName", issuer=None) == EMAIL["email"]
    assert scim_value([ISS_SUB, OPAQUE], "externalId", issuer="https://x.example") == "u1"
    assert scim_value([OPAQUE], "emails.value", issuer=None) is None
    assert scim_value([OPAQUE], "nickName", issuer=None) is None


def test_a_format_with_several_members_has_no_single_value() -> None:
    assert naming_value({"format": "aliases", "identifiers": []}) is None


@given(identifiers=st.lists(IDENTIFIER, max_size=4), formats=st.lists(FORMATS, max_size=4))
def test_whatever_the_identifiers_are_only_a_usable_one_is_found(
    identifiers: list[dict[str, object]], formats: list[str]
) -> None:
    found = next_subject(identifiers, formats, start=0, issuer=None)

    if found:
        index, identifier = found
        assert identifier["format"] == formats[index]
        assert naming_value(identifier)
