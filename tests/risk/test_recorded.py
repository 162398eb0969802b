"""Recorded facts come back as they went in."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.model import Level
from risk.policies import recorded
from risk.policies.facts import RequestFacts
from risk.policies.recorded import RecordedAddress

names = st.text(max_size=12)
maps = st.dictionaries(names, names, max_size=4)
sets = st.frozensets(names, max_size=4)
addresses = st.builds(
    RecordedAddress,
    ip=names,
    known=st.booleans(),
    asn=st.none() | st.integers(0, 2**32 - 1),
    country=st.none() | names,
    categories=sets,
)
facts = st.builds(
    RequestFacts,
    kind=st.sampled_from(("sign_in", "session", "enroll_factor")),
    level=st.sampled_from(Level),
    user_level=st.sampled_from(Level),
    device_level=st.sampled_from(Level),
    zones=sets,
    groups=sets,
    app_id=st.none() | names,
    record=st.none() | addresses,
    posture=maps,
    behaviours=maps,
    detections=sets,
    changes=st.lists(names, max_size=4).map(tuple),
    amr=st.lists(names, max_size=4).map(tuple),
    acr=st.none() | names,
    auth_age_s=st.none() | st.floats(0, 1e9),
    issuer=st.none() | names,
    exempt=st.booleans(),
    extra=st.dictionaries(names, st.integers(-5, 5) | names, max_size=3),
)


@given(facts, st.lists(names, max_size=5).map(tuple))
def test_what_is_recorded_is_read_again(
    given_facts: RequestFacts, app_ids: tuple[str, ...]
) -> None:
    assert recorded.decode(recorded.encode(given_facts, app_ids)) == (given_facts, app_ids)


def test_an_older_shorter_record_is_still_read() -> None:
    decoded, app_ids = recorded.decode(msgspec.msgpack.encode(["session", 2]))
    assert (decoded.kind, decoded.level, app_ids) == ("session", Level.MEDIUM, ())


@pytest.mark.parametrize("extra", [{"a": "x" * 5000}, {"a": 2**70}, {"a": object()}])
def test_what_the_caller_sent_is_kept_up_to_a_limit(extra: dict[str, object]) -> None:
    large = RequestFacts(kind="session", level=Level.LOW, extra=extra)
    assert recorded.decode(recorded.encode(large))[0].extra == {}


@given(st.binary(max_size=40))
def test_anything_else_is_one_kind_of_error(raw: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        recorded.decode(raw)
