"""The index of sessions, on both databases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from risk.entities import store as entities_store
from risk.entities.model import Link
from risk.model import Level, SignalMode
from risk.sessions import service
from risk.sessions.model import EndSession, Session, parse_session
from runtime.errors import NotFound
from tests.risk.kit import (
    CAEP,
    IDP,
    JIM,
    LAPTOP,
    MDM,
    NOW,
    PHONE,
    TENANT,
    TINA,
    World,
    device_risk,
    hours,
    pair,
    signal,
)


async def session_of(world: World, sid: str, iss: str = IDP) -> Session:
    async with world.database.snapshot() as connection:
        return await service.get_session(connection, TENANT, iss=iss, sid=sid)


async def end(world: World, sid: str, at_h: float = 1, iss: str = IDP) -> bool:
    item = EndSession(tenant_id=TENANT, iss=iss, sid=sid, at=NOW + hours(at_h))
    async with world.database.transaction() as connection:
        return (await service.end_sessions(connection, [item]))[0]


async def test_a_first_put_makes_session_user_and_device(world: World) -> None:
    put = await world.put_session("s1", device="LT-1", amr=["hwk"], acr="AAL2")
    assert put.created
    assert set(put.new_alias_keys) == {"email:tina@customer.example", "opaque:LT-1"}
    stored = await session_of(world, "s1")
    assert (stored.user_id, stored.device_id) == (put.user_id, put.device_id)
    assert (stored.amr, stored.acr, stored.started_at) == (("hwk",), "AAL2", NOW)


async def test_a_second_put_updates(world: World) -> None:
    first = await world.put_session("s1", device="LT-1")
    again = await world.put_session("s1", acr="AAL3", now=NOW + hours(1))
    assert (again.session_id, again.created) == (first.session_id, False)
    assert again.new_alias_keys == ()
    stored = await session_of(world, "s1")
    assert (stored.acr, stored.device_id, stored.started_at) == ("AAL3", first.device_id, NOW)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # Late, without a time, of the same second, and newer.
        ({"auth_time": 1.0, "acr": "AAL1", "amr": ["pwd"]}, (2.0, "AAL3", ("hwk",))),
        ({"acr": "AAL1", "amr": ["pwd"]}, (2.0, "AAL3", ("hwk",))),
        ({}, (2.0, "AAL3", ("hwk",))),
        ({"auth_time": 2.0}, (2.0, "AAL3", ("hwk",))),
        ({"auth_time": 2.0, "acr": "AAL2"}, (2.0, "AAL2", ("hwk",))),
        ({"auth_time": 3.0, "acr": "AAL1", "amr": ["pwd"]}, (3.0, "AAL1", ("pwd",))),
        ({"auth_time": 3.0}, (3.0, None, ())),
    ],
)
async def test_a_proof_is_replaced_by_no_older_one(
    world: World, said: dict[str, Any], expected: tuple[float, str | None, tuple[str, ...]]
) -> None:
    """Regression: a refresh that came late made the sign-in as old as it knew it."""

    def at(hour: float) -> datetime:
        return NOW + hours(hour)

    await world.put_session("s1", acr="AAL3", amr=["hwk"], auth_time=at(2).timestamp(), now=at(2))
    if "auth_time" in said:
        said = {**said, "auth_time": at(said["auth_time"]).timestamp()}
    await world.put_session("s1", now=at(4), **said)
    stored = await session_of(world, "s1")
    assert (stored.auth_time, stored.acr, stored.amr) == (at(expected[0]), *expected[1:])


@pytest.mark.parametrize(
    ("known", "said", "is_proven"),
    [
        # Nobody said when the user signed in: when the session began, at the latest.
        (None, 0.0, False),
        (None, 0.9, False),
        (None, 1.0, True),
        (2.0, 2.0, False),
        (2.0, 1.0, False),
        # A step-up is noted to the fraction of a second, `auth_time` has none.
        (2.7, 2.0, False),
        (2.0, 2.9, False),
        (2.7, 3.0, True),
        (2.0, None, False),
    ],
)
async def test_only_a_proof_that_the_hub_did_not_know_is_one(
    world: World, *, known: float | None, said: float | None, is_proven: bool
) -> None:
    def proof(second: float | None) -> dict[str, Any]:
        return {} if second is None else {"auth_time": NOW.timestamp() + second}

    made = await world.put_session(
        "s1", now=NOW + hours(1), started_at=NOW.timestamp(), **proof(known)
    )
    again = await world.put_session("s1", now=NOW + hours(1), **proof(said))
    assert (made.proven, again.proven) == (False, is_proven)


async def test_a_session_that_begins_anew_begins_with_its_own_proof(world: World) -> None:
    proof = {"acr": "AAL3", "amr": ["hwk"], "auth_time": (NOW + hours(1)).timestamp()}
    await world.put_session("s1", now=NOW + hours(1), **proof)
    assert await end(world, "s1", at_h=2)
    anew = {"started_at": (NOW + hours(3)).timestamp(), "auth_time": NOW.timestamp()}
    assert (await world.put_session("s1", now=NOW + hours(3), acr="AAL1", **anew)).created
    stored = await session_of(world, "s1")
    assert (stored.auth_time, stored.acr, stored.amr) == (NOW, "AAL1", ())


async def test_the_same_sid_of_two_issuers_is_two_sessions(world: World) -> None:
    one = await world.put_session("s1")
    two = await world.put_session("s1", iss=MDM, user=JIM)
    assert one.session_id != two.session_id
    assert two.created


async def test_a_batch_answers_each_item_in_order(world: World) -> None:
    bodies = [
        ("s1", {"user": TINA, "device": "LT-1"}, TENANT),
        ("s1", {"user": JIM}, TENANT),
        ("s2", {"user": "ext:nobody"}, TENANT),
        ("s3", {"user": TINA, "device": "dev_nowhere"}, TENANT),
        ("s4", {"user": {"format": "email", "email": "TINA@customer.example"}}, TENANT),
        ("s1", {"user": TINA}, "blue"),
        ("s1", {"user": TINA}, TENANT),
    ]
    items = [
        parse_session(body, tenant_id=tenant, iss=IDP, sid=sid, now=NOW)
        for sid, body, tenant in bodies
    ]
    async with world.database.transaction() as connection:
        results = await service.put_sessions(connection, items)
    assert [each.refusal for each in results] == [
        "",
        "other_user",
        "unknown_user",
        "unknown_device",
        "",
        "",
        "",
    ]
    assert results[0].user_id == results[4].user_id == results[6].user_id
    assert results[5].user_id != results[0].user_id
    assert (results[0].created, results[6].created) == (True, False)


async def test_all_names_of_a_new_user_are_kept(world: World) -> None:
    both = {
        "format": "aliases",
        "identifiers": [TINA, {"format": "iss_sub", "iss": IDP, "sub": "u-1"}],
    }
    first = await world.put_session("s1", user=both)
    assert len(first.new_alias_keys) == 2
    again = await world.put_session("s2", user=f"iss_sub:{IDP}|u-1")
    assert again.user_id == first.user_id


async def test_known_users_and_devices_can_be_named_by_reference(world: World) -> None:
    first = await world.put_session("s1", device="LT-1")
    await world.add_user(JIM, external_id="0042")
    by_id = await world.put_session("s2", user=first.user_id, device=first.device_id)
    assert (by_id.user_id, by_id.device_id) == (first.user_id, first.device_id)
    by_external = await world.put_session("s3", user="ext:0042")
    assert by_external.user_id not in ("", first.user_id)
    wrong_kind = await world.put_session("s4", device=first.user_id)
    assert wrong_kind.device_id not in (first.user_id, None)


async def test_an_ended_session_is_refused_until_it_begins_anew(world: World) -> None:
    first = await world.put_session("s1")
    assert await end(world, "s1")
    assert (await world.put_session("s1")).refusal == "ended"
    anew = await world.put_session(
        "s1", started_at=(NOW + hours(2)).timestamp(), now=NOW + hours(3)
    )
    assert anew.created
    assert anew.session_id != first.session_id


async def test_ending_is_idempotent_and_tells_unknown_ones(world: World) -> None:
    await world.put_session("s1", device="LT-1")
    assert await end(world, "s1", at_h=1)
    assert await end(world, "s1", at_h=2)
    assert (await session_of(world, "s1")).ended_at == NOW + hours(1)
    assert not await end(world, "nowhere")
    with pytest.raises(NotFound):
        await session_of(world, "nowhere")


async def test_the_link_lasts_as_long_as_the_last_session(world: World) -> None:
    first = await world.put_session("s1", device="LT-1")
    await world.put_session("s2", device="LT-1")
    await end(world, "s1", at_h=1)
    assert [link.until for link in await links(world, first.user_id)] == [None]
    await end(world, "s2", at_h=3)
    assert [link.until for link in await links(world, first.user_id)] == [NOW + hours(3)]


async def test_a_session_that_moves_leaves_its_old_device_then(world: World) -> None:
    put = await world.put_session("s1", device="LT-1")
    await world.put_session("s1", device="LT-2", now=NOW + hours(1))
    ends = {link.device_id: link.until for link in await links(world, put.user_id)}
    assert ends.pop(put.device_id or "") == NOW + hours(1)
    assert list(ends.values()) == [None]


async def links(world: World, user_id: str) -> list[Link]:
    async with world.database.snapshot() as connection:
        return await entities_store.links_of_users(connection, TENANT, user_ids=[user_id])


async def test_the_sessions_of_a_user_are_listed_newest_first(world: World) -> None:
    for number in range(3):
        await world.put_session(f"s{number}")
    await world.put_session("other", user=JIM)
    user = "email:tina@customer.example"
    async with world.database.snapshot() as connection:
        page = await service.list_sessions(connection, TENANT, user=user, limit=2)
        rest = await service.list_sessions(connection, TENANT, user=user, after=page[-1].session_id)
    assert [each.sid for each in (*page, *rest)] == ["s2", "s1", "s0"]


# --- what issuers report ------------------------------------------------------------------------


@pytest.mark.requirement("SET-19", "SUB-34")
async def test_a_revocation_ends_the_sessions_of_its_issuer_that_began_before(
    world: World,
) -> None:
    await world.put_session("old", started_at=(NOW - hours(1)).timestamp())
    await world.put_session("new", now=NOW + hours(2))
    await world.put_session("app", iss=MDM)
    await world.assess(
        signal(CAEP + "session-revoked", iss=IDP, at=NOW, received_at=NOW + hours(3)),
        now=NOW + hours(3),
    )
    assert (await session_of(world, "old")).ended_at == NOW
    assert (await session_of(world, "new")).ended_at is None
    assert (await session_of(world, "app", MDM)).ended_at is None


async def test_of_two_revocations_the_earlier_time_counts(world: World) -> None:
    await world.put_session("s1", started_at=(NOW - hours(5)).timestamp())
    await world.assess(
        signal(CAEP + "session-revoked", iss=IDP, at=NOW),
        signal(CAEP + "session-revoked", iss=IDP, at=NOW - hours(1)),
    )
    assert (await session_of(world, "s1")).ended_at == NOW - hours(1)


async def test_a_log_only_issuer_ends_nothing(world: World) -> None:
    await world.put_session("s1")
    await world.assess(signal(CAEP + "session-revoked", iss=IDP, mode=SignalMode.LOG_ONLY), now=NOW)
    assert (await session_of(world, "s1")).ended_at is None


@pytest.mark.requirement("CAEP-23")
async def test_an_established_session_enters_the_index_with_its_device(world: World) -> None:
    await world.add_user(TINA)
    about = pair(TINA, LAPTOP) | {"session": {"format": "opaque", "id": "s1"}}
    event = CAEP + "session-established"
    await world.assess(signal(event, {"acr": "AAL2", "amr": ["pwd"]}, about=about, iss=IDP))
    stored = await session_of(world, "s1")
    assert (stored.acr, stored.amr) == ("AAL2", ("pwd",))
    assert stored.device_id is not None
    (made,) = (await world.assess(device_risk("high", about=LAPTOP))).assessments
    assert (made.user_id, made.level) == (stored.user_id, Level.HIGH)


async def test_a_presented_session_changes_nothing_of_a_known_one(world: World) -> None:
    await world.put_session("s1", acr="AAL3", device="LT-1")
    about = pair(TINA, PHONE) | {"session": {"format": "opaque", "id": "s1"}}
    await world.assess(signal(CAEP + "session-presented", about=about, iss=IDP))
    assert (await session_of(world, "s1")).acr == "AAL3"


@pytest.mark.parametrize(
    "session",
    [
        pytest.param({"format": "iss_sub", "iss": IDP, "sub": "s1"}, id="of another issuer"),
        pytest.param({"format": "jwt_id", "iss": MDM, "jti": "s1"}, id="that is a token"),
    ],
)
async def test_an_issuer_establishes_its_own_sessions_only(
    world: World, session: dict[str, str]
) -> None:
    await world.add_user(TINA)
    about = {"format": "complex", "user": TINA, "session": session}
    await world.assess(signal(CAEP + "session-established", about=about, iss=MDM))
    with pytest.raises(NotFound):
        await session_of(world, "s1")


async def test_a_session_without_a_name_enters_nothing(world: World) -> None:
    await world.add_user(TINA)
    result = await world.assess(signal(CAEP + "session-established", iss=IDP))
    assert [mark.state for mark in result.marks] == ["assessed"]
