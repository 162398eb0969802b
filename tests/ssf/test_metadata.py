"""Tests of ssf.metadata."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssf.errors import LocalProtocolError, RemoteProtocolError, StreamError
from ssf.metadata import (
    OAUTH2_SPEC_URN,
    SPEC_VERSION,
    TransmitterMetadata,
    metadata_url,
    parse_metadata,
    render_metadata,
)
from tests.ssf.kit import JSON_VALUES, Vector

ISSUER = "https://hub.example/t/acme"


def parse(members: dict[str, object]) -> TransmitterMetadata:
    return parse_metadata(json.dumps({"issuer": ISSUER} | members).encode(), ISSUER)


@pytest.mark.requirement("SSF-META-20", "EGW-1", "CRC-1")
@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://h.example", "https://h.example/.well-known/ssf-configuration"),
        ("https://h.example/", "https://h.example/.well-known/ssf-configuration"),
        (
            "https://h.example:8443/t/acme",
            "https://h.example:8443/.well-known/ssf-configuration/t/acme",
        ),
        ("https://h.example/t/acme/", "https://h.example/.well-known/ssf-configuration/t/acme"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/.well-known/ssf-configuration"),
    ],
)
def test_the_well_known_path_is_inserted_between_host_and_path(issuer: str, url: str) -> None:
    assert metadata_url(issuer) == url


@pytest.mark.requirement("SSF-META-2", "SSF-META-24")
@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "h.example",
        "ftp://h.example",
        "https://",
        "https://h.example?x=1",
        "https://h.example/#f",
        "https://[::1",
        "https://h.example/" + "x" * 2000,
    ],
)
def test_an_issuer_that_is_no_plain_url_is_refused(issuer: str) -> None:
    with pytest.raises(StreamError) as caught:
        metadata_url(issuer)
    assert caught.value.requirement == "SSF-META-2"


@pytest.mark.requirement(
    "SSF-META-1",
    "SSF-META-2",
    "SSF-META-3",
    "SSF-META-4",
    "SSF-META-5",
    "SSF-META-6",
    "SSF-META-7",
    "SSF-META-8",
    "SSF-META-9",
    "SSF-META-10",
    "SSF-META-11",
    "SSF-META-12",
    "INT-3",
    "INT-4",
    "INT-9",
    "EGW-2",
)
def test_the_example_is_read_and_rendered_unchanged(vector: Vector) -> None:
    example = vector(2)
    metadata = parse_metadata(json.dumps(example).encode(), example["issuer"])
    assert metadata.authorization_schemes == (OAUTH2_SPEC_URN,)
    assert metadata.spec_version == SPEC_VERSION
    assert render_metadata(metadata) == example


@pytest.mark.requirement("SSF-META-22", "EGW-3")
def test_members_without_value_are_left_out() -> None:
    assert render_metadata(TransmitterMetadata(issuer=ISSUER)) == {
        "spec_version": "1_0",
        "issuer": ISSUER,
    }


@pytest.mark.requirement("SSF-META-11")
def test_default_subjects_is_all_or_none() -> None:
    metadata = TransmitterMetadata(issuer=ISSUER, default_subjects="NONE")
    assert render_metadata(metadata)["default_subjects"] == "NONE"
    with pytest.raises(LocalProtocolError):
        render_metadata(TransmitterMetadata(issuer=ISSUER, default_subjects="all"))


@pytest.mark.requirement("SSF-META-1", "SSF-META-13", "CRC-2")
def test_optional_and_unknown_members_do_not_matter() -> None:
    assert parse({"vendor": {"x": 1}, "status_endpoint": None}) == TransmitterMetadata(
        issuer=ISSUER, spec_version="1_0-ID1"
    )


@pytest.mark.requirement("SSF-META-10")
def test_a_scheme_without_urn_is_left_out() -> None:
    schemes = [{"spec_urn": OAUTH2_SPEC_URN}, {}, "x", {"spec_urn": 1}]
    assert parse({"authorization_schemes": schemes}).authorization_schemes == (OAUTH2_SPEC_URN,)


@pytest.mark.requirement("SSF-META-23", "SSF-META-26")
@pytest.mark.parametrize("issuer", [None, ISSUER + "/", "https://other.example", 7])
def test_another_issuer_in_the_document_is_refused(issuer: object) -> None:
    with pytest.raises(StreamError) as caught:
        parse({"issuer": issuer})
    assert (caught.value.code, caught.value.requirement) == ("invalid_metadata", "SSF-META-23")


@pytest.mark.requirement("SSF-META-21", "SSF-META-23")
@pytest.mark.parametrize(
    "members",
    [
        {"jwks_uri": 7},
        {"jwks_uri": "ftp://h.example/jwks"},
        {"delivery_methods_supported": "urn:ietf:rfc:8935"},
        {"critical_subject_members": [1]},
        {"authorization_schemes": {"spec_urn": "x"}},
        {"spec_version": 1.0},
        {"default_subjects": ["ALL"]},
    ],
)
def test_an_unsound_document_is_not_used(members: dict[str, object]) -> None:
    with pytest.raises(StreamError) as caught:
        parse(members)
    assert caught.value.requirement == "SSF-META-21"


@pytest.mark.requirement("SSF-META-21")
@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"issuer":"a","issuer":"b"}'])
def test_what_is_no_object_is_no_metadata(body: bytes) -> None:
    with pytest.raises(StreamError):
        parse_metadata(body, ISSUER)


@given(st.text() | st.from_regex(r"\Ahttps?://[a-z\[\]:@.0-9/]*\Z"))
def test_any_issuer_gives_a_url_or_a_protocol_error(issuer: str) -> None:
    with suppress(RemoteProtocolError):
        assert "/.well-known/ssf-configuration" in metadata_url(issuer)


@given(
    st.dictionaries(
        st.sampled_from(
            ["jwks_uri", "spec_version", "authorization_schemes", "critical_subject_members"]
        ),
        JSON_VALUES,
    )
)
def test_any_members_give_metadata_or_a_protocol_error(members: dict[str, Any]) -> None:
    with suppress(RemoteProtocolError):
        metadata = parse(members)
        again = json.dumps(render_metadata(metadata)).encode()
        assert parse_metadata(again, ISSUER) == metadata
