"""The Authorization value a receiver asks for arrives as it is, and adds no header of its own."""

from __future__ import annotations

from typing import Any, Final

import pytest

from hub.demo.processes import until
from hub.demo.world import World
from tests.scenarios.test_bad_receivers import Receiver

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

ODD: Final = 'Digest username="a: b", realm=\\"x\\", nonce=%0d%0a\\r\\n, opaque={}<>;~'
HARMFUL: Final = (
    "Bearer a\r\nX-Injected: 1",
    "Bearer a\nX-Injected: 1",
    "Bearer a\rX-Injected: 1",
    "Bearer a\r\n\r\nGET /admin HTTP/1.1",
    "Bearer a\x00b",
    "Bearer a\x0bb",
    "Bearer a\x85X-Injected: 1",
    "Bearer a\u2028X-Injected: 1",
    "Bearer \u010d\u010a",
    "Bearer ä",
    "Bearer 嘊嘍X-Injected: 1",
    "",
    " ",
    " Bearer a",
    "x" * 5_000,
)
#: what the hub sends with each push, and nothing more
HEADERS: Final = {
    "host",
    "user-agent",
    "accept-encoding",
    "accept",
    "content-type",
    "content-length",
    "authorization",
}


@pytest.mark.requirement("SSF-DEL-3", "SSF-DEL-8", "PUSH-5")
async def test_a_harmful_value_is_refused_by_every_way_and_an_odd_one_arrives_verbatim(
    world: World,
) -> None:
    receiver = await Receiver.start(world.http)
    try:
        app = await world.admin(
            "POST", "/admin/v1/apps", {"name": "header", "logout": [{"method": "ssf"}]}
        )
        token = await world.add_client("header", ["ssf.read", "ssf.manage"], app["id"])
        streams = f"{world.hub.issuer}/ssf/streams"

        async def ask(method: str, value: str, **more: str) -> Any:
            delivery = {
                "method": "urn:ietf:rfc:8935",
                "endpoint_url": f"{receiver.url}/r/header",
                "authorization_header": value,
            }
            return await world.http.request(
                method, streams, {"delivery": delivery, **more}, token=token
            )

        for value in HARMFUL:
            assert (await ask("POST", value)).status == 400, value
        created = await ask("POST", ODD)
        assert created.status == 201, created
        stream_id = created.json["stream_id"]
        for value in HARMFUL:
            for method in ("PATCH", "PUT"):
                answer = await ask(method, value, stream_id=stream_id)
                assert answer.status == 400, (method, value)
        verify = {"stream_id": stream_id, "state": "as-given"}
        await world.http.ask("POST", f"{world.hub.issuer}/ssf/verify", verify, token=token)

        async def has_arrived() -> bool:
            return bool(await receiver.ledger())

        await until("the verification event arrives", has_arrived)
        for entry in await receiver.ledger():
            assert entry["authorization"] == ODD
            assert set(entry["headers"]) == HEADERS
    finally:
        await receiver.stop()
