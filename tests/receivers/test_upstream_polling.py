"""Polling upstreams: every SET is stored before it is acked, whatever dies in between."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from jwcrypto.jwk import JWK
from structlog.testing import capture_logs

from receivers.model import ProviderStatus
from receivers.registry import service as registry
from receivers.upstreams import service
from receivers.upstreams.due.store import DUE_MAX
from receivers.upstreams.model import Action, Delivery, Health, OrderState, UpstreamSettings
from receivers.upstreams.polling import EVENTS_MAX, REPORT_TRIES
from receivers.upstreams.store import upstreams
from receivers.upstreams.worker import WINDOW, Job
from runtime.errors import Unavailable
from ssf.poll import JTI_CHARS_MAX
from tests.receivers import vendor
from tests.receivers.conftest import Intake, on_one_engine
from tests.receivers.transmitter import POLL_URL, Transmitter, answer, lost
from tests.receivers.upstream_kit import Dealings


@pytest.fixture
async def dealings(intake: Intake, rsa: JWK, ec: JWK) -> Dealings:
    return Dealings.begin(intake, Transmitter((rsa, ec)))


def hand_over(dealings: Dealings, key: JWK, jti: str, **changes: Any) -> None:
    dealings.outside.waiting[jti] = vendor.sign(vendor.claims(jti=jti, **changes), key).decode()


@pytest.mark.requirement("POLL-1", "POLL-15", "POLL-17", "POLL-16", "CRC-9", "CRC-14", "CR-11")
async def test_a_set_is_stored_and_then_acked_in_the_next_request(
    dealings: Dealings, rsa: JWK, ec: JWK
) -> None:
    await dealings.add_polled()
    hand_over(dealings, rsa, "a")
    hand_over(dealings, ec, "b")
    await dealings.turn()

    assert {signal.jti for signal in await dealings.intake.stored()} == {"a", "b"}
    assert dealings.outside.acked == []
    await dealings.turn()

    assert sorted(dealings.outside.acked) == ["a", "b"]
    first, second = dealings.outside.seen("POST", "/events")
    assert first.url == second.url == POLL_URL
    assert first.headers["content-type"] == "application/json"
    assert first.headers["authorization"] == "Bearer fixed"
    assert json.loads(first.body).keys() == {"maxEvents", "returnImmediately"}
    assert first.timeout_s >= 60
    await dealings.turn()
    assert sorted(dealings.outside.acked) == ["a", "b"]


@pytest.mark.requirement("POLL-14", "POLL-15", "CRC-11", "SET-61")
async def test_a_process_that_dies_between_commit_and_ack_loses_and_doubles_nothing(
    dealings: Dealings, rsa: JWK
) -> None:
    await dealings.add_polled()
    hand_over(dealings, rsa, "a")
    await dealings.turn(settle=False)
    # The transmitter waits in vain for the ack and hands the SET out again.
    hand_over(dealings, rsa, "a")
    await dealings.turn()
    await dealings.turn()

    assert [signal.jti for signal in await dealings.intake.stored()] == ["a"]
    assert dealings.outside.acked == ["a"]


@pytest.mark.requirement("POLL-14", "CRC-13")
async def test_acks_outlive_the_process_and_a_lost_answer(dealings: Dealings, rsa: JWK) -> None:
    await dealings.add_polled()
    hand_over(dealings, rsa, "a")
    await dealings.turn()
    dealings.outside.fail("POST /events", lost)
    await dealings.turn()
    fresh = Dealings.begin(dealings.intake, dealings.outside)
    fresh.upstream_id = dealings.upstream_id
    fresh.pass_time(seconds=10)
    await fresh.turn()

    assert dealings.outside.acked == ["a"]


@pytest.mark.requirement("POLL-18", "SET-55", "SET-57", "POLL-16")
async def test_a_set_that_breaks_a_rule_is_reported_with_its_code(
    dealings: Dealings, rsa: JWK, next_rsa: JWK
) -> None:
    await dealings.add_polled()
    hand_over(dealings, rsa, "good")
    hand_over(dealings, rsa, "other-aud", aud="https://somebody.example")
    forged = vendor.sign(vendor.claims(jti="forged"), next_rsa, header={"kid": "rsa-1"})
    dealings.outside.waiting |= {
        "forged": forged.decode(),
        "no-jws": "x.y",
        "not-ascii": "ü",
        "other-jti": vendor.sign(vendor.claims(jti="its-own"), rsa).decode(),
        "too-long": "a" * 70_000,
    }
    await dealings.turn()
    await dealings.turn()

    assert dealings.outside.acked == ["good"]
    told = {jti: error["err"] for jti, error in dealings.outside.refused.items()}
    assert told == {
        "other-aud": "invalid_audience",
        "forged": "authentication_failed",
        "no-jws": "invalid_request",
        "not-ascii": "invalid_request",
        "other-jti": "invalid_request",
        "too-long": "invalid_request",
    }
    assert [signal.jti for signal in await dealings.intake.stored()] == ["good"]


@on_one_engine
@pytest.mark.requirement("POLL-18", "POLL-25")
async def test_an_upstream_that_takes_no_errors_is_polled_without_them_before_long(
    dealings: Dealings, rsa: JWK
) -> None:
    """Nothing else gets through to it otherwise, ever; what was refused is in our own list."""
    await dealings.add_polled()
    dealings.outside.takes_set_errs = False
    hand_over(dealings, rsa, "bad", aud="https://somebody.example")
    hand_over(dealings, rsa, "taken")
    await dealings.turn()
    hand_over(dealings, rsa, "good")
    with capture_logs() as logs:
        for failures in range(1, REPORT_TRIES + 1):
            dealings.pass_time(seconds=300)
            await dealings.turn()
            assert (await dealings.now()).poll_failures == failures
    dealings.pass_time(seconds=300)
    await dealings.turn()

    assert {signal.jti for signal in await dealings.intake.stored()} == {"taken", "good"}
    assert dealings.outside.acked == ["taken"]
    dropped = [entry for entry in logs if entry["event"] == "upstream.errors_dropped"]
    assert [(entry["count"], entry["log_level"]) for entry in dropped] == [(1, "warning")]
    assert (await dealings.now()).failing_since is None


@on_one_engine
@pytest.mark.requirement("POLL-18")
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_errors_wait_for_an_upstream_that_is_only_out_of_reach(
    dealings: Dealings, rsa: JWK, status: int
) -> None:
    await dealings.add_polled()
    hand_over(dealings, rsa, "bad", aud="https://somebody.example")
    await dealings.turn()
    for _ in range(2 * REPORT_TRIES):
        dealings.outside.fail("POST /events", lambda: answer(status))
        dealings.pass_time(seconds=300)
        await dealings.turn()
    dealings.pass_time(seconds=300)
    await dealings.turn()

    assert list(dealings.outside.refused) == ["bad"]


@on_one_engine
@pytest.mark.requirement("POLL-18")
async def test_what_an_upstream_calls_a_set_and_how_many_it_sends_fills_no_row(
    dealings: Dealings, rsa: JWK
) -> None:
    """The row is read at every look of the process."""
    await dealings.add_polled()
    names = ["j" * JTI_CHARS_MAX, *(f"bad-{number}" for number in range(2 * EVENTS_MAX))]
    dealings.outside.waiting["j" * 10_000_000] = "x.y"
    dealings.outside.waiting |= dict.fromkeys(names, "x.y")
    hand_over(dealings, rsa, "good")
    with capture_logs() as logs:
        await dealings.turn()

    assert list((await dealings.now()).set_errs or {}) == names[:EVENTS_MAX]
    (entry,) = [entry for entry in logs if entry["event"] == "upstream.errors_dropped"]
    assert entry["count"] == EVENTS_MAX + 2
    await dealings.turn()
    assert list(dealings.outside.refused) == names[:EVENTS_MAX]
    assert dealings.outside.acked == ["good"]


@pytest.mark.requirement("SET-54", "SET-37")
async def test_an_undecided_set_is_neither_acked_nor_refused(
    dealings: Dealings, rsa: JWK, jwks_host: vendor.JWKSHost
) -> None:
    jwks_host.failure = Unavailable("down")
    await dealings.add_polled()
    hand_over(dealings, rsa, "a")
    await dealings.turn()

    assert await dealings.turn() == [], "it waits before it asks again"
    dealings.pass_time(seconds=20)
    jwks_host.failure = None
    hand_over(dealings, rsa, "a")
    await dealings.turn()
    await dealings.turn()
    assert dealings.outside.acked == ["a"]
    assert dealings.outside.refused == {}


@on_one_engine
@pytest.mark.requirement("POLL-25")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 302])
async def test_an_error_backs_off_and_is_shown(dealings: Dealings, status: int) -> None:
    await dealings.add_polled()
    for failures in range(1, 4):
        dealings.outside.fail("POST /events", lambda: answer(status))
        dealings.pass_time(seconds=300)
        assert await dealings.turn() == [Job.POLL]
        upstream = await dealings.now()
        assert upstream.poll_failures == failures
        assert upstream.health is Health.FAILING
        assert str(status) in (upstream.last_error or "")
        assert await dealings.turn() == []
    dealings.pass_time(seconds=300)
    await dealings.turn()

    upstream = await dealings.now()
    assert (upstream.poll_failures, upstream.failing_since, upstream.last_error) == (0, None, None)


@on_one_engine
@pytest.mark.requirement("POLL-25")
async def test_retry_after_is_honoured(dealings: Dealings) -> None:
    await dealings.add_polled()
    dealings.outside.fail("POST /events", lambda: answer(503, None, {"retry-after": "120"}))
    await dealings.turn()
    dealings.pass_time(seconds=119)

    assert await dealings.turn() == []
    dealings.pass_time(seconds=2)
    assert await dealings.turn() == [Job.POLL]


@on_one_engine
@pytest.mark.requirement("POLL-8", "CRC-15")
@pytest.mark.parametrize("body", [b"[]", b"{", b"{}", b'{"sets":[]}', b'{"sets":{"a":1}}', b"\xff"])
async def test_an_answer_that_is_none_is_an_error_like_any_other(
    dealings: Dealings, body: bytes
) -> None:
    await dealings.add_polled()
    garbage = answer(200)
    dealings.outside.fail(
        "POST /events", lambda: type(garbage)(status=200, headers={}, body=body, duration_ms=1.0)
    )
    await dealings.turn()

    assert (await dealings.now()).health is Health.FAILING


@on_one_engine
@pytest.mark.requirement("CRC-15")
async def test_204_means_that_there_is_nothing(dealings: Dealings) -> None:
    await dealings.add_polled()
    dealings.outside.fail("POST /events", lambda: answer(204))
    await dealings.turn()

    assert (await dealings.now()).failing_since is None
    assert await dealings.turn() == [], "an instant nothing is not asked for again at once"
    dealings.pass_time(seconds=2)
    assert await dealings.turn() == [Job.POLL]


@pytest.mark.requirement("POLL-25")
async def test_a_process_that_lost_its_lease_settles_nothing(dealings: Dealings, rsa: JWK) -> None:
    await dealings.add_polled()
    hand_over(dealings, rsa, "a")
    await dealings.leases.renew()
    (work,) = await dealings.source.due(tuple(range(256)), dealings.intake.clock.now(), 9, ())
    fence = await dealings.stale_fence()
    settlement = await dealings.source.perform(work, fence)

    assert not await dealings.intake.deps.writer.submit(dealings.source.settle, settlement)
    assert (await dealings.now()).acks == ()


@on_one_engine
@pytest.mark.requirement("POLL-25")
async def test_there_is_one_poll_at_a_time_and_orders_pass_it(dealings: Dealings) -> None:
    upstream = await dealings.add_polled()
    now = dealings.intake.clock.now()
    (poll,) = await dealings.source.due(tuple(range(256)), now, 9, ())

    assert await dealings.source.due(tuple(range(256)), now, 9, (poll.lane,)) == []
    others = [bucket for bucket in range(256) if bucket != upstream.bucket]
    assert await dealings.source.due(tuple(others), now, 9, ()) == []


@pytest.mark.requirement("CR-15", "POLL-25")
@pytest.mark.parametrize("others", [{}, {"stream_status": "disabled"}, {"endpoint_url": None}])
async def test_upstreams_that_are_polled_hide_no_order_and_no_other_poll(
    dealings: Dealings, others: dict[str, Any]
) -> None:
    """However many of them there are: a poll is due as long as it is under way."""
    await dealings.add_polled()
    polled = dealings.upstream_id
    async with dealings.intake.database.transaction() as connection:
        row = (await connection.execute(sa.select(upstreams))).mappings().one()
        names = ({"upstream_id": f"a{n:04}", "provider_id": f"a{n:04}"} for n in range(DUE_MAX + 1))
        earlier = {"tenant_id": "green", "poll_due_at": row["poll_due_at"] - timedelta(days=1)}
        rows = [{**row, **earlier, **others, **name} for name in names]
        await connection.execute(upstreams.insert(), rows)
    intake = dealings.intake
    settings = replace(intake.settings, name="other", issuer="https://other.example")
    provider = await registry.add_provider(intake.admin, settings, tenant_id="default")
    pushed = await service.add_upstream(
        dealings.deps,
        UpstreamSettings(name="pushed", delivery=Delivery.PUSH),
        tenant_id="default",
        provider_id=provider.provider_id,
        secret=None,
    )
    await service.place_order(
        dealings.deps,
        Action.DISCOVER,
        tenant_id="default",
        upstream_id=pushed.upstream_id,
        arguments={},
    )

    works = await dealings.source.due(tuple(range(256)), intake.clock.now(), WINDOW, ())
    jobs = {(work.job, work.upstream.upstream_id) for work in works}
    assert (Job.ORDER, pushed.upstream_id) in jobs
    assert (Job.POLL, polled) in jobs or not others


@on_one_engine
@pytest.mark.requirement("POLL-25")
@pytest.mark.parametrize("by", ["stop", "lease"])
async def test_a_poll_that_waits_is_given_up_when_somebody_else_takes_over(
    dealings: Dealings, by: str
) -> None:
    await dealings.add_polled()
    await dealings.leases.renew()
    (work,) = await dealings.source.due(tuple(range(256)), dealings.intake.clock.now(), 9, ())
    fence = dealings.leases.fence(work.upstream.bucket)
    dealings.outside.answers.clear()
    polling = asyncio.ensure_future(dealings.source.perform(work, fence))
    await dealings.outside.polled.wait()
    if by == "stop":
        dealings.source.stop()
    else:
        await dealings.stale_fence()
        await dealings.leases.renew()

    assert (await polling).change.columns() == {}


@on_one_engine
@pytest.mark.requirement("PUSH-35")
async def test_nothing_is_fetched_for_a_provider_that_is_switched_off(
    dealings: Dealings, rsa: JWK
) -> None:
    upstream = await dealings.add_polled()
    hand_over(dealings, rsa, "a")
    intake = dealings.intake
    provider = await registry.get_provider(intake.admin, "default", upstream.provider_id)
    inactive = replace(provider.settings, status=ProviderStatus.INACTIVE)
    await registry.update_provider(
        intake.admin, inactive, tenant_id="default", provider_id=upstream.provider_id
    )
    await dealings.turn()
    ordered = await dealings.order(Action.DISCOVER)

    assert dealings.outside.requests == []
    assert "not active" in (ordered.last_error or "")
    assert ordered.order is not None
    assert ordered.order.state is OrderState.FAILED
    await registry.update_provider(
        intake.admin, provider.settings, tenant_id="default", provider_id=upstream.provider_id
    )
    dealings.pass_time(seconds=31)
    await dealings.turn()
    assert [signal.jti for signal in await intake.stored()] == ["a"]


@pytest.mark.requirement("SSF-UPD-6")
async def test_a_stream_that_the_upstream_disables_is_polled_no_more(
    dealings: Dealings, rsa: JWK
) -> None:
    await dealings.add_polled()
    updated = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
    about = {"format": "opaque", "id": "f67e39a0"}
    event = {updated: {"status": "disabled", "reason": "licence"}}
    hand_over(dealings, rsa, "u", sub_id=about, events=event)
    await dealings.turn()
    upstream = await dealings.now()

    assert (upstream.stream_status, upstream.stream_reason) == ("disabled", "licence")
    assert await dealings.turn() == []
    # What is pushed or polled from elsewhere may enable it again.
    await dealings.intake.accept(
        vendor.sign(
            vendor.claims(jti="v", sub_id=about, events={updated: {"status": "enabled"}}), rsa
        ),
        (await _profile(dealings)),
    )
    assert await dealings.turn() == [Job.POLL]


@on_one_engine
@pytest.mark.requirement("CR-21", "SSF-UPD-6")
@pytest.mark.parametrize("payload", [{}, {"status": "asleep"}, {"status": 7}])
async def test_an_update_without_a_status_is_taken_and_changes_nothing(
    dealings: Dealings, rsa: JWK, payload: dict[str, Any]
) -> None:
    await dealings.add_polled()
    updated = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
    hand_over(dealings, rsa, "u", events={updated: payload})
    await dealings.turn()
    await dealings.turn()

    assert dealings.outside.acked == ["u"] or "u" in dealings.outside.refused
    assert (await dealings.now()).stream_status is None


@on_one_engine
async def test_what_is_heard_is_shown(dealings: Dealings, rsa: JWK) -> None:
    await dealings.add_polled()
    assert (await dealings.now()).health is Health.UNKNOWN
    hand_over(dealings, rsa, "a")
    await dealings.turn()

    upstream = await dealings.now()
    assert upstream.last_set_at == dealings.intake.clock.now()
    assert upstream.health is Health.OK


async def _profile(dealings: Dealings) -> Any:
    from receivers.registry.service import load_profiles  # noqa: PLC0415

    intake = dealings.intake
    upstream = await dealings.now()
    profiles = await load_profiles(intake.database, intake.admin.secrets, "default")
    return profiles[upstream.provider_id]
