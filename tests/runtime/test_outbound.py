"""All outbound clients against real servers: same answers, same errors, same limits."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from runtime.database import Database
from runtime.egress import EgressRules
from runtime.errors import AddressBlocked, BodyTooLarge, ConnectFailed, TimedOut, Unavailable
from runtime.lean import LeanOutbound
from runtime.outbound import OutboundAnswer, OutboundRequest, parse_retry_after
from runtime.pinned import PinnedOutbound
from runtime.streaming import StreamingOutbound
from tests.runtime import web
from tests.runtime.background import LIMIT_S

Client: TypeAlias = PinnedOutbound | StreamingOutbound | LeanOutbound
Opener: TypeAlias = Callable[..., AbstractAsyncContextManager[Client]]

DEVELOPMENT = EgressRules(dev_insecure=True)
DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


KINDS = (PinnedOutbound, StreamingOutbound, LeanOutbound)


@pytest.fixture(params=KINDS, ids=["pinned", "streaming", "lean"])
def opener(request: pytest.FixtureRequest) -> Opener:
    @asynccontextmanager
    async def open_client(rules: EgressRules, **options: Any) -> AsyncIterator[Client]:
        opened: Client = request.param(rules, **options)
        try:
            yield opened
        finally:
            await opened.close()

    return open_client


@pytest.fixture
async def client(opener: Opener) -> AsyncIterator[Client]:
    async with opener(DEVELOPMENT) as opened:
        yield opened


@pytest.fixture
async def site() -> AsyncIterator[web.Site]:
    async with web.site() as started:
        yield started


def _post(url: str, **members: Any) -> OutboundRequest:
    return replace(OutboundRequest(method="POST", url=url, timeout_s=LIMIT_S), **members)


def _names(**addresses: list[str]) -> Callable[..., list[Any]]:
    """Return a name service that knows these names (`_` for a dot) and no other."""
    known = {name.replace("_", "."): found for name, found in addresses.items()}
    known["127.0.0.1"] = ["127.0.0.1"]

    def lookup(host: str, port: int, *_: object) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in known[host]
        ]

    return lookup


def _nobody(host: str, *_: object) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, f"no such name: {host}")


async def test_a_request_arrives_as_it_was_given(client: Client, site: web.Site) -> None:
    headers = {"content-type": "application/secevent+jwt", "Accept": "application/json"}
    answer = await client.send(_post(site.url("/echo?a=1"), headers=headers, body=b"a.b.c"))
    (seen,) = site.requests
    assert (seen.method, seen.path, seen.body) == ("POST", "/echo?a=1", b"a.b.c")
    arrived = {name.lower(): value for name, value in seen.headers.items()}
    assert arrived["content-type"] == "application/secevent+jwt"
    assert arrived["accept"] == "application/json"
    assert arrived["host"] == f"127.0.0.1:{site.port}"
    assert arrived["user-agent"] == "signalhub"
    assert (answer.status, answer.body) == (200, b"a.b.c")
    assert answer.duration_ms > 0


@pytest.mark.parametrize("status", [202, 204, 400, 401, 404, 429, 500, 503])
async def test_every_status_is_an_answer(client: Client, site: web.Site, status: int) -> None:
    answer = await client.send(_post(site.url(f"/status/{status}")))
    assert answer.status == status
    assert answer.headers["x-mixed-case"] == "yes"
    assert answer.retry_after_s == 120.0


@pytest.mark.requirement("SSF-DEL-6")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_answers_and_never_followed(
    client: Client, site: web.Site, status: int
) -> None:
    answer = await client.send(_post(site.url(f"/status/{status}"), body=b"secret"))
    assert answer.status == status
    assert answer.headers["location"] == "/echo"
    assert [seen.path for seen in site.requests] == [f"/status/{status}"]


async def test_a_body_of_the_allowed_size_is_read(client: Client, site: web.Site) -> None:
    answer = await client.send(_post(site.url("/bytes/65536"), body_bytes_max=65_536))
    assert len(answer.body) == 65_536


async def test_one_byte_more_is_refused(client: Client, site: web.Site) -> None:
    with pytest.raises(BodyTooLarge):
        await client.send(_post(site.url("/bytes/65537"), body_bytes_max=65_536))


async def test_an_endless_body_is_refused(client: Client, site: web.Site) -> None:
    with pytest.raises(BodyTooLarge):
        await client.send(_post(site.url("/endless")))
    assert (await client.send(_post(site.url("/echo"), body=b"next"))).body == b"next"


async def test_a_packed_body_is_not_unpacked(client: Client) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    async with web.raw(head + b"\x1f\x8b\x08\x00") as hostile:
        answer = await client.send(_post(hostile.url()))
    assert answer.body == b"\x1f\x8b\x08\x00"


@pytest.mark.parametrize("path", ["/never", "/drip"])
async def test_the_time_limit_is_for_the_whole_answer(
    client: Client, site: web.Site, path: str
) -> None:
    with pytest.raises(TimedOut):
        await client.send(_post(site.url(path), timeout_s=0.3))


async def test_a_refused_connection_is_said_so(client: Client) -> None:
    async with web.bait() as closed_soon:
        url = closed_soon.url()
    with pytest.raises(ConnectFailed):
        await client.send(_post(url))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "ssh", "no-status", "cut-short", "bad-chunk", "large-header"],
)
async def test_an_answer_that_is_not_http_is_a_failed_connection(
    client: Client, answer: bytes
) -> None:
    async with web.raw(answer) as hostile:
        with pytest.raises(ConnectFailed):
            await client.send(_post(hostile.url()))


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer x\r\nX-Injected: yes"}, {"x": "a\x00b"}],
    ids=["line-break", "null"],
)
async def test_a_header_that_cannot_be_sent_is_not_sent(
    client: Client, site: web.Site, headers: dict[str, str]
) -> None:
    """Regression: one client raised ValueError, which nobody above expects."""
    with pytest.raises(ConnectFailed):
        await client.send(_post(site.url("/echo"), headers=headers))
    assert site.requests == []


async def test_the_host_header_is_the_urls_own(client: Client, site: web.Site) -> None:
    headers = {"Host": "internal.example", "host": "internal.example"}
    await client.send(_post(site.url("/echo"), headers=headers))
    (seen,) = site.requests
    hosts = [value for name, value in seen.headers.items() if name.lower() == "host"]
    assert hosts == [f"127.0.0.1:{site.port}"]


async def test_cookies_are_neither_kept_nor_sent(client: Client, site: web.Site) -> None:
    """Regression: one client kept them under the address, for every name behind it."""
    for _ in range(2):
        assert (await client.send(_post(site.url("/cookie")))).body == b""


async def test_no_request_leaves_inside_a_transaction(
    client: Client, site: web.Site, tmp_path: Path
) -> None:
    database = Database.connect(f"sqlite:///{tmp_path}/hub.db")
    for held in (database.transaction, database.snapshot):
        async with held():
            with pytest.raises(AssertionError, match="inside a database transaction"):
                await client.send(_post(site.url("/echo")))
    await database.close()
    assert site.requests == []
    assert (await client.send(_post(site.url("/echo")))).status == 200


async def test_the_next_address_is_tried_when_one_takes_no_connection(
    opener: Opener, site: web.Site
) -> None:
    """Regression: `localhost` that is `::1` first did not reach a server on 127.0.0.1."""
    lookup = _names(hub_test=["127.0.0.2", "127.0.0.1"])
    async with opener(DEVELOPMENT, lookup=lookup) as client:
        answer = await client.send(_post(site.url("/echo", host="hub.test"), body=b"once"))
    assert answer.body == b"once"
    (seen,) = site.requests
    assert seen.headers["Host"] == f"hub.test:{site.port}"


async def test_a_name_nobody_knows_is_a_failed_connection(opener: Opener) -> None:
    async with opener(DEVELOPMENT, lookup=_names()) as client:
        with pytest.raises(ConnectFailed):
            await client.send(_post("https://nobody.example/"))


async def test_a_name_server_that_answers_nonsense_is_a_failed_connection(opener: Opener) -> None:
    async with opener(DEVELOPMENT, lookup=_names(odd_test=["not an address"])) as client:
        with pytest.raises(ConnectFailed):
            await client.send(_post("https://odd.test/"))


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> web.Authority:
    return web.Authority(tmp_path_factory.mktemp("authority"))


def _production(authority: web.Authority) -> EgressRules:
    return EgressRules(allow=("127.0.0.0/8",), extra_ca=str(authority.file))


async def test_a_server_of_the_added_authority_is_trusted_under_its_name(
    opener: Opener, authority: web.Authority
) -> None:
    lookup = _names(hub_test=["127.0.0.1"])
    async with (
        web.site(tls=authority.server("hub.test", "127.0.0.1")) as site,
        opener(_production(authority), lookup=lookup) as client,
    ):
        for host in ("hub.test", "127.0.0.1"):
            answer = await client.send(_post(site.url("/echo", scheme="https", host=host)))
            assert answer.status == 200


async def test_a_certificate_for_another_name_is_refused(
    opener: Opener, authority: web.Authority
) -> None:
    lookup = _names(evil_test=["127.0.0.1"])
    async with (
        web.site(tls=authority.server("hub.test")) as site,
        opener(_production(authority), lookup=lookup) as client,
    ):
        with pytest.raises(ConnectFailed):
            await client.send(_post(site.url("/echo", scheme="https", host="evil.test")))
        assert site.requests == []


async def test_an_unknown_authority_is_refused(opener: Opener, authority: web.Authority) -> None:
    async with (
        web.site(tls=authority.server("127.0.0.1")) as site,
        opener(EgressRules(allow=("127.0.0.0/8",))) as client,
    ):
        with pytest.raises(ConnectFailed):
            await client.send(_post(site.url("/echo", scheme="https")))


async def test_a_name_never_rides_on_a_connection_that_was_checked_for_another(
    opener: Opener, authority: web.Authority
) -> None:
    """Regression: two names of one address shared a connection, and the second was not checked.

    Whoever could answer at that address with a certificate for any name of his own was then
    believed to be everybody else there, such as an issuer whose keys we fetch.
    """
    lookup = _names(evil_test=["127.0.0.1"], issuer_test=["127.0.0.1"])
    async with (
        web.site(tls=authority.server("evil.test")) as site,
        opener(_production(authority), lookup=lookup) as client,
    ):
        first = await client.send(_post(site.url("/echo", scheme="https", host="evil.test")))
        assert first.status == 200
        with pytest.raises(ConnectFailed):
            await client.send(_post(site.url("/echo", scheme="https", host="issuer.test")))
        assert len(site.requests) == 1


# Retry-After


@pytest.mark.requirement("PUSH-44")
@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("99999999999999999999", DAY_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY_S),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Mon, 1 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, wait_s: float | None) -> None:
    assert parse_retry_after(value) == wait_s


@given(st.text() | st.from_regex(r"\A\w{3}, \d{1,25} \w{3} \d{1,25} \d+:\d+:\d+ [+-]?\w+\Z"))
def test_any_retry_after_has_an_answer(value: str) -> None:
    wait_s = parse_retry_after(value)
    assert wait_s is None or 0.0 <= wait_s <= DAY_S


def test_an_answer_without_the_header_asks_for_nothing() -> None:
    answer = OutboundAnswer(status=503, headers={}, body=b"", duration_ms=1.0)
    assert answer.retry_after_s is None


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=40))
async def test_any_url_has_a_reason_why_it_is_not_called(texts: list[str]) -> None:
    """No lookup succeeds here, so nothing is ever connected to."""
    for kind in KINDS:
        client = kind(DEVELOPMENT, lookup=_nobody)
        for text in texts:
            for url in (text, f"https://{text}/", f"http://x.example/{text}"):
                with pytest.raises((AddressBlocked, ConnectFailed)):
                    await client.send(_post(url))
        await client.close()


def test_every_failure_is_unavailable() -> None:
    assert all(
        issubclass(kind, Unavailable)
        for kind in (TimedOut, ConnectFailed, AddressBlocked, BodyTooLarge)
    )
