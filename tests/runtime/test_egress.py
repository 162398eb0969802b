"""Attacks on the address guard: whatever the URL says, nothing inside is ever connected to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.egress import LOOKUPS_MAX, AddressGuard, EgressRules
from runtime.errors import AddressBlocked, ConnectFailed, TimedOut
from runtime.outbound import OutboundRequest
from runtime.pinned import PinnedOutbound
from runtime.streaming import StreamingOutbound
from tests.runtime import web
from tests.runtime.background import LIMIT_S

Client: TypeAlias = PinnedOutbound | StreamingOutbound
pytestmark = pytest.mark.requirement("SSF-DEL-6")

PRODUCTION = EgressRules()

#: literal hosts that are, or lead to, the inside
INSIDE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]",
    "[2001:0:7f00:1::]",
    "[2001::80ff:fffe]",
    "[fec0::1]",
    "[100::1]",
    "[5f00::1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:db8::1]",
]
#: the same, written so that somebody may not notice
DISGUISED = [
    "2130706433",
    "017700000001",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "00000127.0.0.1",
    "127.0.0.1.",
    "\N{CIRCLED DIGIT ONE}\N{CIRCLED DIGIT TWO}\N{CIRCLED DIGIT SEVEN}.0.0.1",
    "127\N{IDEOGRAPHIC FULL STOP}0.0.1",
    "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
    "[::1%25eth0]",
    "127.0.0.1%00.example",
    "%31%32%37.0.0.1",
]
#: digits of Unicode 13: a name to Python's IDNA, an address to the one of the HTTP client
NEWER_DIGITS = "\U0001fbf1\U0001fbf2\U0001fbf7.0.0.1"

#: what digits, dots and the ends of an authority may look like
HOST_CHARACTERS = st.sampled_from(
    "127.0oOxl[]:%@\\/#?"
    "\N{CIRCLED DIGIT ONE}\N{CIRCLED DIGIT SEVEN}"
    "\N{SEGMENTED DIGIT ZERO}\N{SEGMENTED DIGIT ONE}"
    "\N{IDEOGRAPHIC FULL STOP}\N{FULLWIDTH FULL STOP}\N{HALFWIDTH IDEOGRAPHIC FULL STOP}"
) | st.characters(categories=["N"])

NOT_A_PLACE = [
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1\\@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com#@127.0.0.1:{port}/@",
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_",
    "ws://example.com/",
    "unix:///var/run/docker.sock",
    "//127.0.0.1/",
    "/relative",
    "",
    "https://",
    "https:///path",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://exa\nmple.com/",
    " https://example.com/",
    "https://example.com/\r\nHost: 127.0.0.1",
    "https://[::1/",
    "https://a..b/",
    "https://" + "a" * 9_000 + ".example/",
]


@pytest.fixture
async def bait() -> AsyncIterator[web.Site]:
    async with web.bait() as started:
        yield started


@pytest.fixture(params=[PinnedOutbound, StreamingOutbound], ids=["pinned", "streaming"])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    chosen: type[Client] = request.param
    return chosen


def _names(*addresses: str) -> Callable[..., list[Any]]:
    """Return a name service that gives these addresses for every name."""

    def lookup(_host: str, port: int, *_: object) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    return lookup


async def _send(client: Client, url: str) -> None:
    try:
        await client.send(OutboundRequest(method="POST", url=url, body=b"x", timeout_s=LIMIT_S))
    finally:
        await client.close()


async def _blocked(client: Client, urls: list[str]) -> list[str]:
    """Return those URLs that the client refuses to call."""
    blocked = []
    for url in urls:
        with suppress(ConnectFailed, TimedOut):
            try:
                await client.send(OutboundRequest(method="POST", url=url, timeout_s=LIMIT_S))
            except AddressBlocked:
                blocked.append(url)
    await client.close()
    return blocked


@pytest.mark.parametrize("hosts", [INSIDE, DISGUISED], ids=["plain", "disguised"])
async def test_an_inside_address_is_never_connected_to(
    kind: type[Client], bait: web.Site, hosts: list[str]
) -> None:
    urls = [bait.url(scheme="https", host=host) for host in hosts]
    assert await _blocked(kind(PRODUCTION), urls) == urls
    assert bait.connections == []


async def test_digits_of_a_newer_unicode_do_not_pass_as_a_name(
    kind: type[Client], bait: web.Site
) -> None:
    """Regression: the guard saw a name, the HTTP client 127.0.0.1, and went there unchecked."""
    with pytest.raises((AddressBlocked, ConnectFailed)):
        await _send(kind(PRODUCTION), bait.url(scheme="https", host=NEWER_DIGITS))
    assert bait.connections == []


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(alphabet=HOST_CHARACTERS, min_size=1, max_size=20), max_size=50))
async def test_no_spelling_of_a_host_reaches_loopback(hosts: list[str]) -> None:
    async with web.bait() as bait:
        for kind in (PinnedOutbound, StreamingOutbound):
            client = kind(PRODUCTION, lookup=_names("127.0.0.1"))
            for host in hosts:
                url = bait.url(scheme="https", host=host)
                with pytest.raises(AddressBlocked):
                    await client.send(OutboundRequest(method="POST", url=url))
            await client.close()
        assert bait.connections == []


async def test_a_url_that_names_no_public_https_place_is_refused(
    kind: type[Client], bait: web.Site
) -> None:
    urls = [url.replace("{port}", str(bait.port)) for url in NOT_A_PLACE]
    assert await _blocked(kind(PRODUCTION, lookup=_names("127.0.0.1")), urls) == urls
    assert bait.connections == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "0x7f000001", "0x7f.1"])
async def test_a_name_that_resolves_to_loopback_is_refused(
    kind: type[Client], bait: web.Site, host: str
) -> None:
    """With the machine's own name service, which reads such numbers as addresses."""
    with pytest.raises((AddressBlocked, ConnectFailed)):
        await _send(kind(PRODUCTION), bait.url(scheme="https", host=host))
    assert bait.connections == []


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["10.0.0.8"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["93.184.215.14", "127.0.0.1"],
        ["127.0.0.1", "93.184.215.14"],
        ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::1"],
    ],
    ids="+".join,
)
async def test_a_name_with_an_inside_address_among_its_answers_is_refused(
    kind: type[Client], bait: web.Site, answers: list[str]
) -> None:
    client = kind(PRODUCTION, lookup=_names(*answers))
    with pytest.raises(AddressBlocked):
        await _send(client, bait.url(scheme="https", host="public.example"))
    assert bait.connections == []


async def test_a_name_is_looked_up_once_and_connected_to_as_checked(
    kind: type[Client], bait: web.Site
) -> None:
    """DNS rebinding: the second answer would be another one, and is never asked for."""
    asked: list[str] = []

    def rebinding(host: str, port: int, *_: object) -> list[Any]:
        asked.append(host)
        address = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
        return _names(address)(host, port)

    rules = EgressRules(allow=("127.0.0.2/32",))
    with pytest.raises(ConnectFailed):
        await _send(kind(rules, lookup=rebinding), bait.url(scheme="https", host="rebind.example"))
    assert asked == ["rebind.example"]
    assert bait.connections == []


async def test_development_mode_opens_loopback_and_nothing_else(kind: type[Client]) -> None:
    for host in ("10.0.0.1", "169.254.169.254", "[fd00:ec2::254]"):
        with pytest.raises(AddressBlocked):
            await _send(kind(EgressRules(dev_insecure=True)), f"http://{host}/")


async def test_an_allowed_network_opens_itself_and_nothing_else(
    kind: type[Client], bait: web.Site
) -> None:
    rules = EgressRules(allow=("127.0.0.0/8",))
    with pytest.raises(ConnectFailed):  # the bait speaks no TLS, but it was reached
        await _send(kind(rules), bait.url(scheme="https"))
    assert len(bait.connections) == 1
    with pytest.raises(AddressBlocked):
        await _send(kind(rules), "https://10.0.0.1/")


async def test_an_allowed_name_may_resolve_to_the_inside_and_no_other_name_may(
    kind: type[Client], bait: web.Site
) -> None:
    rules, inside = EgressRules(allow=("Vault.Internal",)), _names("127.0.0.1")
    with pytest.raises(ConnectFailed):
        await _send(kind(rules, lookup=inside), bait.url(scheme="https", host="vault.internal"))
    assert len(bait.connections) == 1
    for other in ("other.internal", "vault.internal.evil.example", "evil-vault.internal"):
        with pytest.raises(AddressBlocked):
            await _send(kind(rules, lookup=inside), bait.url(scheme="https", host=other))
    with pytest.raises(AddressBlocked):
        await _send(kind(rules, lookup=inside), bait.url(scheme="https"))
    assert len(bait.connections) == 1


async def test_plain_http_needs_the_development_switch(kind: type[Client], bait: web.Site) -> None:
    with pytest.raises(AddressBlocked):
        await _send(kind(EgressRules(allow=("127.0.0.0/8",))), bait.url())
    assert bait.connections == []


def test_a_network_that_hides_others_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="64:ff9b::/96"):
        AddressGuard(EgressRules(allow=("64:ff9b::/96",)))


async def test_a_refusal_does_not_repeat_the_url() -> None:
    guard = AddressGuard(PRODUCTION)
    with pytest.raises(AddressBlocked) as caught:
        guard.check_url("https://user:hunter2@example.com/token/secret")
    assert "hunter2" not in caught.value.detail
    assert "secret" not in caught.value.detail
    guard.close()


async def test_stalled_name_servers_hold_up_no_other_threads() -> None:
    """Regression: lookups ran in the threads that the whole process shares."""
    release = threading.Event()

    def stalled(_host: str, port: int, *_: object) -> list[Any]:
        release.wait(LIMIT_S)
        return _names("93.184.215.14")("", port)

    guard = AddressGuard(PRODUCTION, lookup=stalled)
    target = guard.check_url("https://stalled.example/")
    lookups = [asyncio.create_task(guard.addresses(target)) for _ in range(LOOKUPS_MAX)]
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.to_thread(lambda: "free") == "free"
        release.set()
        assert await asyncio.gather(*lookups) == [["93.184.215.14"]] * LOOKUPS_MAX
    guard.close()


async def test_a_lookup_that_takes_too_long_is_given_up(kind: type[Client]) -> None:
    release = threading.Event()

    def stalled(host: str, port: int, *_: object) -> list[Any]:
        release.wait(LIMIT_S)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    client = kind(PRODUCTION, lookup=stalled)
    try:
        with pytest.raises(TimedOut):
            await client.send(
                OutboundRequest(method="GET", url="https://stalled.example/", timeout_s=0.1)
            )
    finally:
        release.set()
        await client.close()
