"""The stream client: one exchange per order, nothing created twice, nobody else believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jwcrypto.jwk import JWK

import receivers.upstreams.service as upstreams
from receivers.registry.service import load_profiles
from receivers.upstreams.model import Action, Auth, Delivery, Health, OrderState, Upstream
from receivers.upstreams.worker import Job
from runtime.errors import Conflict
from ssf.errors import SETError
from tests.hub.statements import Watcher
from tests.receivers import vendor
from tests.receivers.conftest import Intake, on_one_engine
from tests.receivers.transmitter import CLIENT, POLL_URL, STREAM_ID, Transmitter, answer, lost
from tests.receivers.upstream_kit import ISSUER, SESSION_REVOKED, Dealings


@pytest.fixture
async def dealings(intake: Intake, rsa: JWK, ec: JWK) -> Dealings:
    return Dealings.begin(intake, Transmitter((rsa, ec)))


async def connected(dealings: Dealings, **settings: Any) -> Upstream:
    """Return an upstream with OAuth whose stream is created."""
    wanted: dict[str, Any] = {"auth": Auth.BASIC, "client_id": CLIENT[0], **settings}
    await dealings.add(secret=CLIENT[1], header="Bearer to-us", **wanted)
    made = await dealings.order(Action.CREATE)
    assert made.order is not None
    assert made.order.state is OrderState.DONE, made.order.detail
    return made


def state_of(upstream: Upstream) -> tuple[OrderState, str]:
    assert upstream.order is not None
    return upstream.order.state, upstream.order.detail or ""


@pytest.mark.requirement(
    "CR-1", "CR-2", "CR-3", "CR-15", "CRC-4", "CRC-6", "CRC-7", "CRC-8", "EGW-53"
)
async def test_every_step_is_an_order_of_its_own(dealings: Dealings) -> None:
    made = await connected(dealings)
    assert made.stream_id == STREAM_ID
    assert made.settings.endpoint_url == POLL_URL
    assert made.stream is not None
    assert made.stream["events_delivered"] == [SESSION_REVOKED]
    (create,) = dealings.outside.seen("POST", "/streams")
    assert json.loads(create.body).keys() == {"events_requested", "delivery", "description"}
    assert json.loads(create.body)["delivery"] == {"method": "urn:ietf:rfc:8936"}
    for action, method, path in (
        (Action.READ, "GET", "/streams"),
        (Action.UPDATE, "PATCH", "/streams"),
        (Action.REPLACE, "PUT", "/streams"),
        (Action.READ_STATUS, "GET", "/status"),
        (Action.VERIFY, "POST", "/verify"),
    ):
        before = len(dealings.outside.seen(method, path))
        assert state_of(await dealings.order(action))[0] is OrderState.DONE
        assert len(dealings.outside.seen(method, path)) == before + 1
    paused = await dealings.order(Action.SET_STATUS, status="paused", reason="night")
    assert paused.stream_status == "paused"
    gone = await dealings.order(Action.DELETE)

    assert dealings.outside.stream is None
    assert (gone.stream_id, gone.stream, gone.settings.endpoint_url) == (None, None, None)
    for name in ("PATCH", "PUT"):
        (request,) = dealings.outside.seen(name, "/streams")
        sent = json.loads(request.body)
        assert sent.keys() == {"stream_id", "events_requested", "delivery", "description"}


@pytest.mark.requirement("CR-13", "INT-12", "SSF-DEL-3", "EGW-52")
async def test_a_push_stream_names_an_intake_that_works_already(
    dealings: Dealings, rsa: JWK
) -> None:
    made = await connected(dealings, delivery=Delivery.PUSH)
    (create,) = dealings.outside.seen("POST", "/streams")
    profiles = await load_profiles(
        dealings.intake.database, dealings.intake.admin.secrets, made.tenant_id
    )

    assert json.loads(create.body)["delivery"] == {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": f"{ISSUER}/receivers/{made.provider_id}/events",
        "authorization_header": "Bearer to-us",
    }
    provider = profiles[made.provider_id]
    assert provider.authorization == b"Bearer to-us"
    raw = vendor.sign(vendor.claims(), rsa)
    assert (await dealings.intake.accept(raw, provider)).value == "stored"


# --- never twice --------------------------------------------------------------------------------


@pytest.mark.requirement("CRC-5")
async def test_a_create_whose_answer_is_lost_is_not_repeated_but_looked_up(
    dealings: Dealings,
) -> None:
    await dealings.add(secret=CLIENT[1], auth=Auth.BASIC, client_id=CLIENT[0])
    outside = dealings.outside

    def made_but_lost() -> Any:
        outside.stream = {
            "stream_id": STREAM_ID,
            "iss": vendor.ISSUER,
            "aud": vendor.AUDIENCE,
            "delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": POLL_URL},
            "events_delivered": [],
            "description": f"Signalhub {dealings.upstream_id}",
        }
        return lost()

    outside.fail("POST /streams", made_but_lost)
    waiting = await dealings.order(Action.CREATE)
    assert state_of(waiting)[0] is OrderState.SENT
    dealings.pass_time(seconds=10)
    await dealings.turn()

    found = await dealings.now()
    assert state_of(found) == (OrderState.DONE, "our stream was there already")
    assert found.stream_id == STREAM_ID
    assert len(outside.seen("POST", "/streams")) == 1


@pytest.mark.requirement("CRC-5")
async def test_a_process_that_dies_after_the_create_leaves_it_to_the_next(
    dealings: Dealings,
) -> None:
    await dealings.add(secret=CLIENT[1], auth=Auth.POST, client_id=CLIENT[0])
    await upstreams.place_order(
        dealings.deps, Action.CREATE, tenant_id="default", upstream_id=dealings.upstream_id
    )
    await dealings.turn(settle=False)
    assert state_of(await dealings.now())[0] is OrderState.SENT
    await dealings.turn()

    assert state_of(await dealings.now())[0] is OrderState.DONE
    assert len(dealings.outside.seen("POST", "/streams")) == 1


@on_one_engine
@pytest.mark.requirement("CRC-5")
async def test_without_a_list_an_uncertain_create_is_left_to_people(dealings: Dealings) -> None:
    await dealings.add(secret=CLIENT[1], auth=Auth.BASIC, client_id=CLIENT[0])
    outside = dealings.outside
    outside.fail("GET /streams", lambda: answer(405), lambda: answer(405))
    outside.fail("POST /streams", lost)
    await dealings.order(Action.CREATE)
    dealings.pass_time(seconds=10)
    await dealings.turn()

    state, detail = state_of(await dealings.now())
    assert state is OrderState.FAILED
    assert "ask the vendor" in detail
    assert len(outside.seen("POST", "/streams")) == 1


@on_one_engine
@pytest.mark.requirement("SSF-OP-51")
async def test_on_409_our_own_stream_is_patched_and_a_strangers_is_left_alone(
    dealings: Dealings,
) -> None:
    await dealings.add(secret=CLIENT[1], auth=Auth.BASIC, client_id=CLIENT[0])
    outside = dealings.outside
    strange = {
        "stream_id": "theirs",
        "iss": vendor.ISSUER,
        "aud": vendor.AUDIENCE,
        "delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": POLL_URL},
        "description": "somebody else's",
    }
    outside.stream = strange
    assert "not ours" in state_of(await dealings.order(Action.CREATE))[1]
    assert outside.seen("PATCH", "/streams") == []
    # Two processes of an operator race: the stream appears between our look and our create.
    outside.fail("GET /streams", lambda: answer(200, []))
    outside.stream = {**strange, "description": f"Signalhub {dealings.upstream_id}"}
    adopted = await dealings.order(Action.CREATE)

    assert state_of(adopted)[0] is OrderState.DONE
    assert len(outside.seen("PATCH", "/streams")) == 1
    assert adopted.stream_id == STREAM_ID


@on_one_engine
@pytest.mark.requirement("CRC-5", "CR-15")
async def test_orders_that_do_not_fit_are_refused_at_once(dealings: Dealings) -> None:
    await dealings.add_polled()
    for action in set(Action) - {Action.DISCOVER, Action.CREATE}:
        with pytest.raises(Conflict):
            await dealings.order(action)
    assert dealings.outside.seen("POST", "/verify") == []
    await dealings.order(Action.CREATE)
    with pytest.raises(Conflict):
        await dealings.order(Action.CREATE)


# --- whom we believe ----------------------------------------------------------------------------


@on_one_engine
@pytest.mark.requirement("SSF-OP-50")
@pytest.mark.parametrize("action", [Action.CREATE, Action.READ, Action.UPDATE, Action.REPLACE])
async def test_an_answer_of_another_issuer_is_discarded(dealings: Dealings, action: Action) -> None:
    method = {Action.CREATE: "POST", Action.READ: "GET", Action.UPDATE: "PATCH"}.get(action, "PUT")
    if action is not Action.CREATE:
        before = await connected(dealings)
    else:
        before = await dealings.add(secret=CLIENT[1], auth=Auth.BASIC, client_id=CLIENT[0])
    wrong = {"stream_id": "evil", "iss": "https://evil.example", "aud": vendor.AUDIENCE}
    if action is Action.CREATE:
        dealings.outside.fail("GET /streams", lambda: answer(200, [wrong]))
    dealings.outside.fail(
        f"{method} /streams", lambda: answer(201 if method == "POST" else 200, wrong)
    )
    after = await dealings.order(action)

    assert state_of(after)[0] is OrderState.FAILED
    assert "SSF-OP-50" in state_of(after)[1]
    assert after.stream_id == before.stream_id


@on_one_engine
@pytest.mark.requirement("SSF-META-23")
async def test_metadata_of_another_issuer_is_not_used(dealings: Dealings) -> None:
    dealings.outside.issuer = "https://evil.example"
    await dealings.add()
    found = await dealings.order(Action.DISCOVER)

    assert state_of(found)[0] is OrderState.FAILED
    assert found.metadata is None


@on_one_engine
@pytest.mark.requirement("SSF-META-25", "OLD-1")
async def test_metadata_is_found_where_the_admin_says(dealings: Dealings) -> None:
    await dealings.add(metadata_url=f"{vendor.ISSUER}/custom/configuration")
    found = await dealings.order(Action.DISCOVER)

    assert found.metadata is not None
    assert found.metadata["status_endpoint"]
    assert [request.url for request in dealings.outside.requests] == [
        f"{vendor.ISSUER}/custom/configuration"
    ]
    assert "authorization" not in dealings.outside.requests[0].headers


@on_one_engine
@pytest.mark.requirement("SSF-CFG-3", "CRC-8")
async def test_a_stream_for_another_audience_is_known_but_not_taken_for_good(
    dealings: Dealings,
) -> None:
    dealings.outside.aud = "https://somebody.example"
    await dealings.add(secret=CLIENT[1], auth=Auth.BASIC, client_id=CLIENT[0])
    made = await dealings.order(Action.CREATE)

    assert state_of(made)[0] is OrderState.FAILED
    assert "audiences" in state_of(made)[1]
    assert made.stream_id == STREAM_ID, "so that it can be deleted"
    # All it holds would be refused: nobody asks for it.
    assert Job.POLL in await dealings.turn(jobs={Job.POLL})
    held_back = await dealings.now()
    assert dealings.outside.seen("POST", "/events") == []
    assert held_back.health is Health.FAILING
    assert "audiences" in (held_back.last_error or "")
    assert Job.POLL not in await dealings.turn(jobs={Job.POLL}), "not at once again"
    assert state_of(await dealings.order(Action.DELETE))[0] is OrderState.DONE


@on_one_engine
@pytest.mark.requirement("CRC-8")
async def test_an_answer_that_leaves_out_where_to_poll_changes_nothing_of_that(
    dealings: Dealings,
) -> None:
    """Keycloak 26.7 names the address once; after a PATCH the order failed."""
    await connected(dealings)
    told = {
        "stream_id": STREAM_ID,
        "iss": vendor.ISSUER,
        "aud": vendor.AUDIENCE,
        "delivery": {"method": "urn:ietf:rfc:8936"},
    }
    dealings.outside.fail("PATCH /streams", lambda: answer(200, told))
    changed = await dealings.order(Action.UPDATE)

    assert state_of(changed)[0] is OrderState.DONE, state_of(changed)
    assert changed.settings.endpoint_url == POLL_URL


@on_one_engine
@pytest.mark.requirement("CRC-2", "OLD-7")
@pytest.mark.parametrize(
    ("action", "place", "status"),
    [
        (Action.UPDATE, "PATCH /streams", 405),
        (Action.REPLACE, "PUT /streams", 405),
        (Action.SET_STATUS, "POST /status", 405),
        (Action.READ, "GET /streams", 404),
        (Action.VERIFY, "POST /verify", 400),
    ],
)
async def test_what_an_upstream_does_not_offer_fails_that_order_alone(
    dealings: Dealings, action: Action, place: str, status: int
) -> None:
    await connected(dealings)
    dealings.outside.fail(place, lambda: answer(status))
    arguments = {"status": "paused"} if action is Action.SET_STATUS else {}
    failed = await dealings.order(action, **arguments)

    assert state_of(failed)[0] is OrderState.FAILED
    assert str(status) in state_of(failed)[1]
    assert failed.stream_id == STREAM_ID
    assert state_of(await dealings.order(Action.READ_STATUS))[0] is OrderState.DONE


@on_one_engine
@pytest.mark.requirement("OLD-7", "CRC-15", "SSF-OP-23")
@pytest.mark.parametrize(
    ("action", "place", "status"),
    [
        (Action.VERIFY, "POST /verify", 202),
        (Action.VERIFY, "POST /verify", 200),
        (Action.READ, "GET /streams", 204),
        (Action.UPDATE, "PATCH /streams", 202),
        (Action.READ_STATUS, "GET /status", 204),
    ],
)
async def test_other_kinds_of_yes_are_understood(
    dealings: Dealings, action: Action, place: str, status: int
) -> None:
    await connected(dealings)
    dealings.outside.fail(place, lambda: answer(status))

    assert state_of(await dealings.order(action))[0] is OrderState.DONE


@on_one_engine
@pytest.mark.requirement("CRC-2")
async def test_what_may_pass_is_tried_again_but_not_for_ever(dealings: Dealings) -> None:
    await connected(dealings)
    outside = dealings.outside
    outside.fail("GET /status", *[lambda: answer(503)] * 3)
    await dealings.order(Action.READ_STATUS)
    for _ in range(3):
        dealings.pass_time(seconds=61)
        await dealings.turn(jobs={Job.ORDER})
    assert state_of(await dealings.now())[0] is OrderState.DONE
    outside.fail("GET /status", *[lost] * 100)
    await dealings.order(Action.READ_STATUS)
    for _ in range(20):
        dealings.pass_time(seconds=61)
        await dealings.turn(jobs={Job.ORDER})

    assert state_of(await dealings.now())[0] is OrderState.FAILED
    assert (await dealings.now()).stream_id == STREAM_ID


# --- tokens -------------------------------------------------------------------------------------


@on_one_engine
@pytest.mark.requirement("CRC-3", "SSF-AUTH-4", "INT-26")
@pytest.mark.parametrize("auth", [Auth.BASIC, Auth.POST])
async def test_tokens_are_renewed_before_they_run_out_and_once_on_401(
    dealings: Dealings, auth: Auth
) -> None:
    await connected(dealings, auth=auth)
    outside = dealings.outside
    (asked,) = outside.seen("POST", "/token")
    assert ("authorization" in asked.headers) is (auth is Auth.BASIC)
    assert (b"client_secret=p%26ss+word" in asked.body) is (auth is Auth.POST)
    assert b"scope=ssf.read+ssf.manage" in asked.body
    await dealings.order(Action.READ_STATUS)
    assert len(outside.tokens) == 1
    dealings.pass_time(seconds=880)
    await dealings.order(Action.READ_STATUS)
    assert len(outside.tokens) == 2
    outside.revoked.add(outside.tokens[-1])
    assert state_of(await dealings.order(Action.READ_STATUS))[0] is OrderState.DONE
    assert len(outside.tokens) == 3
    outside.fail("GET /status", lambda: answer(401), lambda: answer(401))
    assert state_of(await dealings.order(Action.READ_STATUS))[0] is OrderState.FAILED
    assert len(outside.tokens) == 4


@on_one_engine
@pytest.mark.requirement("INT-22", "INT-32", "EGW-51")
@pytest.mark.parametrize(
    ("supported", "setting", "asked"),
    [
        (["ssf.read"], None, b"scope=ssf.read&"),
        (["profile", "ssf.manage"], None, b"scope=ssf.manage&"),
        (None, None, b"scope=ssf.read+ssf.manage&"),
        (["ssf.read"], "ssf.manage", b"scope=ssf.manage&"),
    ],
)
async def test_the_scope_is_the_resources_own_unless_the_admin_names_one(
    dealings: Dealings, supported: list[str] | None, setting: str | None, asked: bytes
) -> None:
    dealings.outside.scopes_supported = supported
    await connected(dealings, auth=Auth.POST, scope=setting)

    assert asked in dealings.outside.seen("POST", "/token")[0].body


@on_one_engine
@pytest.mark.requirement("INT-32")
async def test_a_scope_that_the_client_may_not_have_falls_back(dealings: Dealings) -> None:
    dealings.outside.scopes_supported = ["ssf.read", "ssf.secret"]
    await connected(dealings)

    assert len(dealings.outside.seen("POST", "/token")) == 2


@on_one_engine
@pytest.mark.requirement("INT-32")
async def test_a_challenge_leads_to_scopes_but_no_secret_follows_it(dealings: Dealings) -> None:
    outside = dealings.outside
    outside.challenge = 'Bearer resource_metadata="https://evil.example/resource"'
    await connected(dealings)
    outside.revoked.update(outside.tokens)
    await dealings.order(Action.READ_STATUS)

    strange = [request for request in outside.requests if "evil.example" in request.url]
    assert [request.method for request in strange] == ["GET"]
    assert all("authorization" not in request.headers for request in strange)


@on_one_engine
@pytest.mark.requirement("POLL-25")
async def test_to_read_the_status_ends_no_pause_that_the_upstream_asked_for(
    dealings: Dealings,
) -> None:
    await connected(dealings)
    dealings.outside.fail("POST /events", lambda: answer(503, None, {"retry-after": "120"}))
    assert Job.POLL in await dealings.turn()
    await dealings.order(Action.READ_STATUS)
    assert await dealings.turn() == []
    dealings.pass_time(seconds=121)
    assert Job.POLL in await dealings.turn()


# --- verification -------------------------------------------------------------------------------


async def deliver_verification(
    dealings: Dealings, key: JWK, state: str | None, jti: str = "ver-1"
) -> str:
    """Let the upstream push a verification; return the outcome or the error code."""
    payload = {} if state is None else {"state": state}
    raw = vendor.sign(
        vendor.claims(
            jti=jti,
            sub_id={"format": "opaque", "id": STREAM_ID},
            events={vendor.VERIFICATION: payload},
        ),
        key,
    )
    upstream = await dealings.now()
    profiles = await load_profiles(
        dealings.intake.database, dealings.intake.admin.secrets, upstream.tenant_id
    )
    try:
        return (await dealings.intake.accept(raw, profiles[upstream.provider_id])).value
    except SETError as error:
        return error.code


@pytest.mark.requirement("SSF-VER-9", "SSF-VER-10", "SSF-VER-11", "SET-62", "CR-4", "CR-5")
async def test_the_state_that_comes_must_have_been_asked_for(dealings: Dealings, rsa: JWK) -> None:
    await connected(dealings)
    await dealings.order(Action.VERIFY)
    await dealings.order(Action.VERIFY)
    first, second = dealings.outside.states
    assert first is not None
    assert second is not None
    assert first != second
    assert len(first) >= 22, "128 bit"

    assert await deliver_verification(dealings, rsa, "never asked") == "invalid_state"
    assert (await dealings.now()).last_verified_at is None
    assert await deliver_verification(dealings, rsa, None, "ver-0") == "stored"
    assert await deliver_verification(dealings, rsa, second, "ver-2") == "stored"
    assert await deliver_verification(dealings, rsa, first, "ver-1") == "stored"
    assert await deliver_verification(dealings, rsa, first, "ver-1") == "duplicate"
    assert (await dealings.now()).health is Health.OK
    dealings.pass_time(hours=1, seconds=1)
    assert await deliver_verification(dealings, rsa, first, "ver-3") == "invalid_state"


@pytest.mark.requirement("SSF-VER-11", "SSF-CFG-8")
async def test_the_round_trip_repeats_and_silence_is_told(dealings: Dealings, rsa: JWK) -> None:
    await connected(dealings, verify_every_s=60)
    dealings.pass_time(seconds=89)
    assert Job.VERIFY not in await dealings.turn(), "the upstream allows one in 90 s"
    dealings.pass_time(seconds=2)
    assert Job.VERIFY in await dealings.turn()
    assert await deliver_verification(dealings, rsa, dealings.outside.states[-1]) == "stored"
    assert (await dealings.now()).health is Health.OK

    dealings.pass_time(seconds=91)
    assert Job.VERIFY in await dealings.turn()
    dealings.pass_time(seconds=301)
    assert Job.SILENCE in await dealings.turn()
    silent = await dealings.now()
    assert silent.health is Health.SILENT
    assert silent.failing_since is not None
    assert (await dealings.now()).health is Health.SILENT, "polls that work do not hide it"

    dealings.pass_time(seconds=301)
    assert Job.VERIFY in await dealings.turn()
    late = await deliver_verification(dealings, rsa, dealings.outside.states[-1], "ver-9")
    assert late == "stored"
    assert (await dealings.now()).health is Health.OK


@on_one_engine
async def test_a_verification_that_is_refused_is_no_silence(dealings: Dealings) -> None:
    await connected(dealings, verify_every_s=60)
    dealings.outside.fail("POST /verify", lambda: answer(429, None, {"retry-after": "900"}))
    dealings.pass_time(seconds=91)
    await dealings.turn()
    upstream = await dealings.now()

    assert upstream.awaiting_since is None
    assert upstream.health is Health.FAILING
    dealings.pass_time(seconds=890)
    assert Job.VERIFY not in await dealings.turn()
    dealings.pass_time(seconds=20)
    assert Job.VERIFY in await dealings.turn()


@on_one_engine
@pytest.mark.requirement("SSF-UPD-6")
async def test_a_stream_that_stopped_is_looked_at_until_it_runs_again(
    dealings: Dealings, rsa: JWK
) -> None:
    await connected(dealings)
    updated = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
    about = {"format": "opaque", "id": STREAM_ID}
    dealings.outside.status = "paused"
    raw = vendor.sign(vendor.claims(sub_id=about, events={updated: {"status": "disabled"}}), rsa)
    upstream = await dealings.now()
    profiles = await load_profiles(
        dealings.intake.database, dealings.intake.admin.secrets, upstream.tenant_id
    )
    await dealings.intake.accept(raw, profiles[upstream.provider_id])
    assert (await dealings.now()).stream_status == "disabled"

    assert Job.STATUS in await dealings.turn()
    assert (await dealings.now()).stream_status == "paused", "read back"
    dealings.outside.status = "enabled"
    dealings.pass_time(minutes=16)
    assert Job.STATUS in await dealings.turn()
    assert (await dealings.now()).stream_status == "enabled"
    dealings.pass_time(minutes=16)
    assert Job.STATUS not in await dealings.turn()


async def test_every_statement_about_an_upstream_names_its_tenant(
    dealings: Dealings, rsa: JWK
) -> None:
    watcher = Watcher()
    watcher.watch(dealings.intake.database)
    await connected(dealings, verify_every_s=60)
    claims = vendor.claims(jti="bad", aud="https://somebody.example")
    dealings.outside.waiting["bad"] = vendor.sign(claims, rsa).decode()
    await dealings.turn()
    await dealings.order(Action.VERIFY)
    assert await deliver_verification(dealings, rsa, dealings.outside.states[-1]) == "stored"
    dealings.pass_time(seconds=400)
    await dealings.turn()
    await upstreams.change_upstream(
        dealings.deps,
        {"scope": "ssf.read"},
        tenant_id="default",
        upstream_id=dealings.upstream_id,
    )
    await dealings.order(Action.DELETE)
    await upstreams.delete_upstream(dealings.deps, "default", dealings.upstream_id)

    assert watcher.unnamed == []
    assert {"system_due_upstreams"} <= watcher.crossings
    assert watcher.count > 50
