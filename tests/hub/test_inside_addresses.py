"""Every place that takes a URL, with a URL that leads inside: refused, or blocked when it is used.

The clients are the real ones with the rules of production. A name may look fine when it is
registered and lead inside when it is used, so what counts is the connection: there is none.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from typing_extensions import override

from hub.admin.openapi import document
from hub.delivery import _upstreams
from runtime.egress import EgressRules
from runtime.errors import AddressBlocked
from runtime.outbound import OutboundAnswer, OutboundRequest
from runtime.pinned import PinnedOutbound
from runtime.queue import BUCKETS, LeaseKeeper
from runtime.store import StoredKey
from runtime.streaming import StreamingOutbound
from tests.hub.conftest import ONE_ENGINE, Outside, opened_hub
from tests.hub.story import RISK_LEVEL_CHANGE, Story, begin, sign
from tests.hub.test_client_assertions import Signer, new_key
from tests.hub.test_external_servers import Server, streams
from tests.runtime import web

pytestmark = pytest.mark.requirement("SSF-DEL-6")

#: what it is -> the host of a URL; many more are tried on the guard itself (test_egress)
INSIDE = {
    "rebinding": "rebinding.example",
    "loopback": "127.0.0.1",
    "this host": "[::]",
    "metadata": "169.254.169.254",
    "IPv4 in IPv6": "[::ffff:127.0.0.1]",
    "NAT64": "[64:ff9b::7f00:1]",
    "decimal": "2130706433",
    "octal": "0177.0.0.1",
    "userinfo": "good.example@127.0.0.1",
}
#: members of admin bodies that hold a URL which the hub calls; streams have their own over SSF
PLACES = {
    ("ProviderBody", "jwks_uri"),
    ("ProviderChange", "jwks_uri"),
    ("LogoutBody", "endpoint_url"),
    ("SCIMBody", "base_url"),
    ("WebhookBody", "url"),
    ("ClientBody", "jwks_uri"),
    ("ClientChange", "jwks_uri"),
    ("ServerBody", "jwks_uri"),
    ("ServerBody", "introspection_url"),
    ("ServerChange", "jwks_uri"),
    ("ServerChange", "introspection_url"),
    ("UpstreamBody", "metadata_url"),
    ("UpstreamBody", "endpoint_url"),
    ("UpstreamBody", "jwks_uri"),
    ("UpstreamBody", "token_endpoint"),
    ("UpstreamChange", "metadata_url"),
    ("UpstreamChange", "endpoint_url"),
    ("UpstreamChange", "token_endpoint"),
}
#: where gateways send browsers; the hub itself never calls there
FOR_BROWSERS = {
    ("ForwardAuthBody", "sign_in_url"),
    ("ForwardAuthBody", "sign_out_url"),
    ("ForwardAuthBody", "step_up_url"),
}


class GuardedOutside(Outside):
    """The world behind the hub's real clients; every name leads to loopback by now."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked: set[str] = set()
        self.called: set[str] = set()
        self._clients = (
            StreamingOutbound(EgressRules(), lookup=_rebound),
            PinnedOutbound(EgressRules(), lookup=_rebound),
        )

    @override
    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        """Try with both clients, and say to the hub what they say."""
        for client in self._clients:
            with suppress(AddressBlocked):
                await client.send(request)
                self.called.add(request.url)
        self.blocked.add(request.url)
        raise AddressBlocked("as both clients say")

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def _rebound(_host: str, port: int, *_: object) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]


@pytest.fixture
async def outside() -> AsyncIterator[GuardedOutside]:
    opened = GuardedOutside()
    yield opened
    await opened.close()


@pytest.fixture
async def story(
    database_url: str, signing_keys: tuple[StoredKey, ...], outside: GuardedOutside
) -> AsyncIterator[Story]:
    async with opened_hub(database_url, signing_keys, outside=outside) as hub:
        yield await begin(hub)


@ONE_ENGINE
@pytest.mark.long
async def test_no_url_of_any_place_leads_inside(story: Story, outside: GuardedOutside) -> None:
    async with web.bait() as bait:
        taken = set()
        for number, host in enumerate(INSIDE.values()):
            for place, register in REGISTER.items():
                url = f"https://{host}:{bait.port}/{place}"
                if await register(story, url, f"{place}-{number}"):
                    taken.add(url)
        await _work_upstreams(story, outside)
        await story.play()

        assert bait.connections == []
    assert outside.called == set()
    # SCIM calls what lies below its URL.
    unused = {url for url in taken if not any(each.startswith(url) for each in outside.blocked)}
    assert unused == set()
    # A name cannot be refused when it is registered: each place got at least so far.
    assert {url.rpartition("/")[2] for url in taken} == set(REGISTER)


async def _provider(story: Story, url: str, name: str) -> bool:
    """Register a provider; its first SET makes the hub fetch the keys."""
    issuer = f"https://{name}.example"
    body = {"name": name, "issuer": issuer, "audiences": ["x"], "jwks_uri": url}
    answer = await story.admin.post("/admin/v1/providers", json=body)
    if not answer.is_success:
        return False
    raw = sign(story.claims(iss=issuer, aud="x"))
    async with story.hub.client() as vendor:
        headers = {"content-type": "application/secevent+jwt"}
        pushed = await vendor.post(answer.json()["events_url"], content=raw, headers=headers)
    assert pushed.status_code == 503, pushed.text
    return True


async def _app(story: Story, name: str, **members: Any) -> bool:
    body = {"name": name, "client_id_at_app": "signalhub", **members}
    return (await story.admin.post("/admin/v1/apps", json=body)).is_success


async def _gtr(story: Story, url: str, name: str) -> bool:
    return await _app(story, name, logout=[{"method": "gtr", "endpoint_url": url}])


async def _bcl(story: Story, url: str, name: str) -> bool:
    return await _app(story, name, logout=[{"method": "bcl", "endpoint_url": url}])


async def _scim(story: Story, url: str, name: str) -> bool:
    scim = {"base_url": url, "token": "t", "quarantine_group_id": "g"}
    issuer = f"https://{name}.example"
    return await _app(story, name, kind="idp", issuer=issuer, scim=scim)


async def _webhook(story: Story, url: str, _name: str) -> bool:
    return (await story.admin.post("/admin/v1/webhooks", json={"url": url})).is_success


async def _client(story: Story, url: str, name: str) -> bool:
    """Register a client that proves itself with keys from a URL; its first try fetches them."""
    body = {"name": name, "scopes": ["ssf.read"], "auth_method": "private_key_jwt", "jwks_uri": url}
    made = await story.admin.post("/admin/v1/clients", json=body)
    if not made.is_success:
        return False
    await story.hub.node.feed.refresh()
    client = Signer(story.hub, new_key(), made.json()["id"])
    assert (await client.ask(client.assertion())).status_code >= 400
    return True


async def _server(story: Story, name: str, *, is_jwt: bool, **members: str) -> bool:
    """Trust an authorization server; a token that may be of it makes the hub ask it."""
    issuer = f"https://{name}.example"
    body = {"name": name, "issuer": issuer, **members}
    made = await story.admin.post("/admin/v1/authorization-servers", json=body)
    if not made.is_success:
        return False
    await story.hub.node.feed.refresh()
    server = Server(story.hub, made.json()["id"], new_key(), issuer)
    answer = await streams(story.hub, server.token() if is_jwt else f"opaque-{name}")
    assert answer.status_code >= 400
    path = f"/admin/v1/authorization-servers/{server.server_id}"
    assert (await story.admin.delete(path)).is_success
    return True


async def _server_keys(story: Story, url: str, name: str) -> bool:
    return await _server(story, name, is_jwt=True, jwks_uri=url)


async def _introspection(story: Story, url: str, name: str) -> bool:
    secrets = {"introspection_client_id": "hub", "introspection_secret": "x"}
    return await _server(story, name, is_jwt=False, introspection_url=url, **secrets)


async def _upstream(story: Story, name: str, *, ordered: bool = False, **members: str) -> bool:
    """Register an upstream; delivery calls it at its next step, or when something is ordered."""
    body = {
        "name": name,
        "issuer": f"https://{name}.example",
        "audiences": ["x"],
        "jwks_uri": f"https://{name}.example/jwks",
        "events_requested": [RISK_LEVEL_CHANGE],
        "delivery": "poll",
        **members,
    }
    made = await story.admin.post("/admin/v1/upstreams", json=body)
    if made.is_success and ordered:
        path = f"/admin/v1/upstreams/{made.json()['id']}/discover"
        assert (await story.admin.post(path)).is_success
    return made.is_success


async def _metadata(story: Story, url: str, name: str) -> bool:
    return await _upstream(story, name, ordered=True, metadata_url=url)


async def _polled(story: Story, url: str, name: str) -> bool:
    return await _upstream(story, name, endpoint_url=url, auth="header", secret="Bearer x")


async def _token(story: Story, url: str, name: str) -> bool:
    return await _upstream(
        story,
        name,
        endpoint_url=f"https://{name}.example/poll",
        token_endpoint=url,
        auth="client_secret_basic",
        client_id="hub",
        secret="x",
    )


async def _work_upstreams(story: Story, outside: Outside) -> None:
    """Do what delivery does about upstreams, once."""
    hub, node = story.hub, story.hub.node
    leases = LeaseKeeper("upstreams", "test", writer=node.writer, clock=hub.clock)
    await leases.renew()
    source = _upstreams(node, outside, outside, leases)
    for work in await source.due(range(BUCKETS), hub.clock.now(), 1_000, ()):
        settlement = await source.perform(work, leases.fence(source.bucket(work)))
        await node.writer.submit(source.settle, settlement)


async def _stream(story: Story, url: str, name: str) -> bool:
    app = await story.post("/admin/v1/apps", {"name": name, "logout": [{"method": "ssf"}]})
    client = await story.post(
        "/admin/v1/clients", {"name": name, "scopes": ["ssf.manage"], "app_id": app["id"]}
    )
    async with story.hub.client(client["token"]) as receiver:
        wanted = {
            "events_requested": [RISK_LEVEL_CHANGE],
            "delivery": {"method": "urn:ietf:rfc:8935", "endpoint_url": url},
        }
        return (await receiver.post("/ssf/streams", json=wanted)).is_success


#: place -> registers a URL there and returns whether the hub took it
REGISTER: dict[str, Callable[[Story, str, str], Awaitable[bool]]] = {
    "jwks": _provider,
    "gtr": _gtr,
    "bcl": _bcl,
    "scim": _scim,
    "webhook": _webhook,
    "client": _client,
    "server": _server_keys,
    "introspection": _introspection,
    "metadata": _metadata,
    "polled": _polled,
    "token": _token,
    "stream": _stream,
}


def test_every_place_that_takes_a_url_is_tried_here() -> None:
    """A new one fails this test until it is in REGISTER."""
    found = {
        (name, member)
        for name, schema in document()["components"]["schemas"].items()
        for member in schema.get("properties", ())
        if member.lower().endswith(("url", "uri", "endpoint"))
    }
    assert found - FOR_BROWSERS == PLACES
    assert found >= FOR_BROWSERS
