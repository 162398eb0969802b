"""What counts as which change of a session's context, and what untrusted members become."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.contexts.agents import Agent, parse_agent
from risk.contexts.model import (
    SEVERE,
    Change,
    Context,
    StoredRecord,
    causes_of,
    changed_values,
    classify,
    level_min,
    nearest,
    ordered,
)
from risk.contexts.parsing import (
    CLOCK_SKEW,
    HOPS_MAX,
    HOPS_SENT_MAX,
    believed_at,
    bounded,
    bounded_chain,
    parse_signals,
)
from risk.model import Level
from runtime.errors import Invalid
from tests.risk.kit import NOW

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
EDGE = f"{CHROME} Edg/131.0.2903.51"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
)
MAC_SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.6 Safari/605.1.15"
)


HOME = StoredRecord(64500, "DE")
BASE = bounded(
    Context(
        ip="198.51.100.7",
        at=NOW,
        user_agent=CHROME,
        ja4="t13d1516h2_8daaf6152771_02713d6af862",
        device_token_hash="a" * 64,
        signals={"device.profile.managed": "true", "device.firewall": "true"},
        record=HOME,
    )
)


def with_agent(user_agent: str) -> dict[str, Any]:
    agent = parse_agent(user_agent)
    return {
        "user_agent": user_agent,
        "ua_family": agent.family,
        "ua_major": agent.major,
        "os_family": agent.os_family,
    }


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ({}, (Change.NONE,)),
        ({"at": NOW + timedelta(hours=5)}, (Change.NONE,)),
        ({"accept_language": "fr"}, (Change.NONE,)),
        ({"ip": "198.51.100.99"}, (Change.MINOR,)),
        ({"ip": "198.51.101.7"}, (Change.NETWORK,)),
        ({"ip": "2001:db8::1"}, (Change.NETWORK,)),
        ({"ip": "198.51.100.8", "record": StoredRecord(64501, "DE")}, (Change.ASN,)),
        ({"ip": "203.0.113.9", "record": StoredRecord(64501, "FR")}, (Change.COUNTRY, Change.ASN)),
        ({"record": StoredRecord(64500, "FR")}, (Change.COUNTRY,)),
        ({"ip": "203.0.113.9", "record": StoredRecord()}, (Change.ASN,)),
        ({"ip": "198.51.9.9", "record": StoredRecord()}, (Change.NETWORK,)),
        ({"ip": "198.51.100.9", "record": StoredRecord()}, (Change.MINOR,)),
        ({"device_token_hash": "b" * 64}, (Change.DEVICE,)),
        ({"device_token_hash": ""}, (Change.SIGNAL_LOSS,)),
        (with_agent(EDGE), (Change.USER_AGENT,)),
        (with_agent(FIREFOX), (Change.OS, Change.USER_AGENT)),
        (with_agent(CHROME.replace("131", "119")), (Change.USER_AGENT,)),
        (with_agent(CHROME.replace("131", "132")), (Change.MINOR,)),
        (with_agent(CHROME.replace("Windows NT 10.0", "X11; Linux")), (Change.OS,)),
        (with_agent(""), (Change.SIGNAL_LOSS,)),
        ({"ja4": "t13d1516h2_ffffffffffff_02713d6af862"}, (Change.USER_AGENT,)),
        ({"ja4": "q13d1516h3_8daaf6152771_999999999999"}, (Change.NONE,)),
        ({"ja4": ""}, (Change.NONE,)),
        (
            {"signals": {"device.profile.managed": "false", "device.firewall": "true"}},
            (Change.POSTURE,),
        ),
        ({"signals": {"device.profile.managed": "true"}}, (Change.SIGNAL_LOSS,)),
        ({"signals": {}}, (Change.NONE,)),
        (
            {
                "ip": "203.0.113.9",
                "record": StoredRecord(64501, "FR"),
                "device_token_hash": "b" * 64,
                **with_agent(FIREFOX),
            },
            (Change.DEVICE, Change.OS, Change.USER_AGENT, Change.COUNTRY, Change.ASN),
        ),
    ],
)
def test_a_change_has_its_classes(differs: dict[str, Any], expected: tuple[Change, ...]) -> None:
    assert classify(BASE, replace(BASE, **differs)) == expected


@pytest.mark.parametrize(
    ("prefix", "near", "far"),
    [
        ("198.51.100.7", "198.51.100.200", "198.51.101.7"),
        ("2001:db8:1:2::1", "2001:db8:1:ffff::9", "2001:db8:2::1"),
    ],
)
def test_the_same_site_is_a_24_or_a_48(prefix: str, near: str, far: str) -> None:
    before = replace(BASE, ip=prefix)
    assert classify(before, replace(BASE, ip=near)) == (Change.MINOR,)
    assert classify(before, replace(BASE, ip=far)) == (Change.NETWORK,)


def test_what_was_not_known_before_is_no_change() -> None:
    before = Context(ip=BASE.ip, at=NOW, record=HOME)
    assert classify(before, BASE) == (Change.NONE,)


@pytest.mark.parametrize("change", list(Change))
def test_severe_changes_are_at_least_medium(change: Change) -> None:
    expected = Level.MEDIUM if change in SEVERE else Level.LOW
    assert level_min((change,)) is expected
    assert level_min(()) is Level.LOW


def test_the_nearest_accepted_context_is_compared() -> None:
    office = replace(BASE, ip="203.0.113.9", record=StoredRecord(64501, "DE"))
    here = replace(office, ip="203.0.113.77")
    assert nearest([BASE, office], here) == (office, (Change.MINOR,))
    assert nearest([BASE], here) == (BASE, (Change.ASN,))


def test_causes_and_values_are_told() -> None:
    here = replace(
        BASE,
        ip="203.0.113.9",
        device_token_hash="b" * 64,
        signals={**BASE.signals, "device.profile.managed": "false"},
        record=StoredRecord(64501, "DE"),
    )
    assert causes_of(classify(BASE, here)) == ("deviceContext.change", "ipAddress.change")
    assert causes_of((Change.NONE,)) == ()
    old, new = changed_values(BASE, here)
    assert old == {
        "ip": BASE.ip,
        "asn": "64500",
        "device_token": "a" * 8,
        "signals.device.profile.managed": "true",
    }
    assert new["signals.device.profile.managed"] == "false"
    assert new["ip"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (CHROME, Agent("chrome", 131, "windows")),
        (EDGE, Agent("edge", 131, "windows")),
        (FIREFOX, Agent("firefox", 128, "linux")),
        (SAFARI, Agent("safari", 18, "ios")),
        (MAC_SAFARI, Agent("safari", 17, "macos")),
        (CHROME.replace("Chrome", "HeadlessChrome"), Agent("chrome", 131, "windows")),
        ("curl/8.5.0", Agent("curl", 8, "other")),
        ("python-requests/2.32.3", Agent("python-requests", 2, "other")),
        ("Mozilla/5.0 (Linux; Android 14) Acme/7", Agent("acme", 7, "android")),
        ("", Agent("", 0, "")),
        ("   ", Agent("", 0, "")),
        ("\x00\xff", Agent("other", 0, "other")),
        ("Chrome/" + "9" * 400, Agent("chrome", 9_999_999, "other")),
    ],
)
def test_a_user_agent_is_split(user_agent: str, expected: Agent) -> None:
    assert parse_agent(user_agent) == expected


@given(st.text())
def test_every_user_agent_has_an_answer(user_agent: str) -> None:
    assert len(parse_agent(user_agent).family) <= 40
    assert len(bounded(Context(ip="", at=NOW, user_agent=user_agent * 40)).user_agent) <= 1024


TEXTS = st.sampled_from(["", "a", "b"])
CONTEXTS = st.builds(
    Context,
    ip=st.sampled_from(["198.51.100.7", "198.51.100.8", "2001:db8::1", "unknown"]),
    ua_family=st.sampled_from(["", "chrome", "edge"]),
    ua_major=st.sampled_from([0, 1]),
    os_family=TEXTS,
    ja4=st.sampled_from(["", "a_b_c", "x"]),
    device_token_hash=TEXTS,
    device_id=TEXTS,
    signals=st.dictionaries(TEXTS, TEXTS, max_size=2),
    at=st.just(NOW),
    record=st.builds(
        StoredRecord, asn=st.sampled_from([None, 1, 2]), country=st.sampled_from([None, "DE", "FR"])
    ),
)


@given(CONTEXTS, CONTEXTS)
def test_every_pair_is_classified_and_equal_keys_never_change(one: Context, other: Context) -> None:
    changes = classify(one, other)
    assert changes == ordered(changes)
    assert changes
    assert (Change.NONE in changes) == (changes == (Change.NONE,))
    assert classify(one, one) == (Change.NONE,)
    if one.key() == other.key():
        assert changes == (Change.NONE,)


def test_the_far_end_of_a_long_chain_is_dropped() -> None:
    chain = [f"10.0.{place // 256}.{place % 256}" for place in range(HOPS_SENT_MAX)]
    assert bounded_chain(chain) == tuple(chain[-HOPS_MAX:])
    with pytest.raises(Invalid):
        bounded_chain([*chain, "10.1.1.1"])
    assert bounded_chain([" " + "x" * 500]) == ("x" * 64,)


def test_a_clock_that_is_wrong_by_hours_is_not_believed() -> None:
    assert believed_at(None, NOW) == NOW
    assert believed_at(NOW - timedelta(hours=3), NOW) == NOW
    assert believed_at(NOW + timedelta(seconds=5), NOW) == NOW
    assert believed_at(NOW - CLOCK_SKEW, NOW) == NOW - CLOCK_SKEW


def test_signals_become_texts() -> None:
    said = {"managed": True, "score": 3, "os": "14.1", "gone": None, "fw": False}
    assert parse_signals(said) == {"managed": "true", "score": "3", "os": "14.1", "fw": "false"}
    assert parse_signals(None) == {}


@pytest.mark.parametrize(
    "said",
    [
        [],
        "x",
        {"a": []},
        {"a": {}},
        {"": "x"},
        {"a" * 81: "x"},
        {"a": "x" * 201},
        {"a": "\x00"},
        {"a": ""},
        {f"n{place}": "x" for place in range(33)},
    ],
)
def test_other_signals_are_refused(said: object) -> None:
    with pytest.raises(Invalid) as refused:
        parse_signals(said)
    assert refused.value.pointers
