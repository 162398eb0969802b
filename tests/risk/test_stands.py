"""What is settled about the contexts of a session, in the database: who was first, what is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from risk.hijacks import shows_hijack
from risk.inline.model import Stand, StandState, settle
from risk.inline.proofs import outdated_by
from risk.inline.service import settle_stands
from risk.inline.shown import asks_more, has_shown
from risk.inline.step_ups import answering
from risk.inline.store import (
    STANDS_MAX,
    newest_stands,
    stand_marks_of,
    stands,
    stands_at,
    write_stands,
)
from risk.model import Level
from risk.policies.ages import EXPRESSION_BELIEVED_S, Ages
from risk.policies.documents import PolicyKind, parse_policy
from risk.sql.store import Connection
from runtime.clock import SystemClock
from runtime.database import Database
from tests.risk.test_contexts import CHROME, FIREFOX

TENANT = "default"
NOW = SystemClock().now()


def stand_at(number: int, state: StandState) -> Stand:
    """Return what was settled some seconds from now about a context of its own."""
    at = NOW + timedelta(seconds=number)
    return Stand(
        tenant_id=TENANT,
        session_id="ses_1",
        context_key=f"key-{number}",
        state=state.value,
        level="LOW",
        decision="ALLOW",
        scope="session",
        at=at,
        since=at,
        context={"ip": "198.51.100.7"},
    )


def test_an_end_of_who_came_to_a_session_is_not_yet_its_own() -> None:
    """As long as it goes on; what ended once does not end again."""
    stopped = stand_at(1, StandState.TERMINATED)
    ends = msgspec.structs.replace(stopped, at=NOW + timedelta(seconds=9), ends=("idp", "sid"))
    assert settle(stopped, ends, is_live=True).is_new
    assert not settle(stopped, ends, is_live=False).is_new
    assert not settle(stopped, msgspec.structs.replace(ends, ends=None), is_live=True).is_new


@pytest.mark.parametrize(("number", "is_first"), [(1, True), (9, False)])
async def test_a_session_begins_with_who_was_seen_first_in_whatever_process(
    database: Database, *, number: int, is_first: bool
) -> None:
    """The owner's first context is written behind the answer, a stranger's before it."""
    async with database.transaction() as connection:
        await settle_stands(connection, [stand_at(5, StandState.DENIED)])
        (settled,) = await settle_stands(connection, [stand_at(number, StandState.ANCHOR)])
    assert settled.is_new is is_first


@pytest.mark.parametrize(
    ("stored", "is_joined"),
    [
        ([(1, StandState.ANCHOR)], True),
        # Another one meanwhile, but others are compared with it as before.
        ([(1, StandState.ANCHOR), (1, StandState.DENIED)], True),
        # Kept out, but nobody else was ever let pass.
        ([(1, StandState.DENIED)], True),
        ([(1, StandState.TERMINATED), (2, StandState.ANCHOR)], False),
        ([(2, StandState.ANCHOR)], False),
        ([], False),
    ],
)
async def test_who_was_let_pass_beside_another_joins_when_that_one_did(
    database: Database, *, stored: list[tuple[int, StandState]], is_joined: bool
) -> None:
    wanted = msgspec.structs.replace(stand_at(9, StandState.ACCEPTED), beside="key-1")
    async with database.transaction() as connection:
        for number, state in stored:
            known = msgspec.structs.replace(stand_at(number, state), since=NOW)
            await settle_stands(connection, [known])
        (settled,) = await settle_stands(connection, [wanted])
    assert settled.is_new is is_joined


@pytest.mark.parametrize(
    ("state", "are_new"),
    [
        (StandState.ANCHOR, [True, False, False, False]),
        (StandState.TERMINATED, [True, True, False, False]),
    ],
)
async def test_who_was_let_pass_beside_one_who_was_refused_is_refused_too(
    database: Database, *, state: StandState, are_new: list[bool]
) -> None:
    """Also in the same batch."""
    first = stand_at(1, StandState.ANCHOR)
    near = msgspec.structs.replace(stand_at(3, StandState.ACCEPTED), beside="key-2")
    nearer = msgspec.structs.replace(stand_at(4, StandState.ACCEPTED), beside="key-3")
    async with database.transaction() as connection:
        settled = await settle_stands(connection, [first, stand_at(2, state), near, nearer])
    assert [each.is_new for each in settled] == are_new


async def test_known_contexts_are_read_however_many_others_there_are(database: Database) -> None:
    many = STANDS_MAX + 10
    known = [stand_at(number, StandState.ACCEPTED) for number in range(1, many)]
    others = [stand_at(number, StandState.TERMINATED) for number in range(many, many * 2)]
    async with database.transaction() as connection:
        await write_stands(connection, [stand_at(0, StandState.ANCHOR), *known, *others])
        found = (await newest_stands(connection, TENANT, session_ids=["ses_1"]))["ses_1"]
        marks = (await stand_marks_of(connection, TENANT, session_ids=["ses_1"]))["ses_1"]
    assert {each.context_key: each.mark for each in found} == marks
    assert [each.at for each in found] == sorted((each.at for each in found), reverse=True)
    kept = {each.context_key for each in found}
    assert {"key-0", f"key-{many - 1}", f"key-{many}", f"key-{many * 2 - 1}"} <= kept
    assert len([each for each in found if each.is_known]) == STANDS_MAX + 1
    assert len(found) == 2 * (STANDS_MAX + 1)


STRANGERS = 1_000


async def rows_read(database: Database, work: Callable[[Connection], Awaitable[object]]) -> int:
    """Return how many stands are read for a piece of work, each time they are."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if statement.startswith("SELECT") and "session_stands" in statement:
            sent.append((statement, values))

    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        async with database.transaction() as connection:
            await work(connection)
    finally:
        sa.event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    assert sent
    async with database.snapshot() as connection:
        found = [await connection.exec_driver_sql(text, values) for text, values in sent]
        return sum(len(each.all()) for each in found)


@pytest.mark.parametrize("state", [StandState.ANCHOR, StandState.ACCEPTED, StandState.TERMINATED])
async def test_to_settle_a_context_reads_few_however_many_strangers_came(
    database: Database, state: StandState
) -> None:
    """Regression: each of them made all that followed slower."""
    others = [stand_at(number, StandState.DENIED) for number in range(1, STRANGERS)]
    async with database.transaction() as connection:
        await write_stands(connection, others)

    async def work(connection: Connection) -> None:
        (settled,) = await settle_stands(connection, [stand_at(STRANGERS, state)])
        assert settled.is_new is (state is not StandState.ANCHOR)
        (again,) = await settle_stands(connection, [stand_at(7, StandState.TERMINATED)])
        assert again.stand.since == stand_at(7, state).since

    assert await rows_read(database, work) <= 2


async def test_a_batch_finds_the_stands_of_each_session(database: Database) -> None:
    """Some contexts have stands in sessions that are settled with them, of which none is meant."""

    def of(session: int, number: int, state: StandState) -> Stand:
        return msgspec.structs.replace(stand_at(number, state), session_id=f"ses_{session}")

    known = [of(session, session % 7, StandState.TERMINATED) for session in range(100)]
    wanted = [of(session, number, StandState.DENIED) for session in range(100) for number in (3, 5)]
    async with database.transaction() as connection:
        await settle_stands(connection, known)
        settled = await settle_stands(connection, wanted)
    kept = {each.stand.session_id for each in settled if not each.is_new}
    assert kept == {f"ses_{session}" for session in range(100) if session % 7 in {3, 5}}


def test_a_proof_is_asked_for_anew_only_by_who_knew_it() -> None:
    passed = stand_at(1, StandState.PASSED)
    asked = msgspec.structs.replace(stand_at(9, StandState.ASKED), context_key="key-1")
    assert not settle(passed, asked).is_new
    late = msgspec.structs.replace(asked, outdated=passed.at - timedelta(seconds=1))
    # Another process heard of a newer proof meanwhile.
    assert not settle(passed, late).is_new
    anew = settle(passed, msgspec.structs.replace(asked, outdated=passed.at))
    assert (anew.is_new, anew.stand.state, anew.stand.is_known) == (True, "asked", True)


@pytest.mark.parametrize(
    ("changes", "reasons", "is_over", "is_shown"),
    [
        # A rule may be called like a change, and of many reasons some are left out.
        ((), ("global-session/posture_changed",), True, False),
        (("device",), ("global-session/out",), True, True),
        (("device",), ("device_changed",), False, False),
        (("device", "fork"), ("global-session/out",) * 20, False, True),
        (("country",), ("global-session/out",), True, True),
        # Who moves within the network, or whose device is worse, is no other client.
        (("network", "posture"), ("global-session/out",), True, False),
    ],
)
def test_a_hijack_is_told_by_what_changed_and_not_by_words(
    changes: tuple[str, ...], reasons: tuple[str, ...], *, is_over: bool, is_shown: bool
) -> None:
    stand = msgspec.structs.replace(
        stand_at(1, StandState.TERMINATED),
        session_level="HIGH",
        changes=changes,
        reasons=reasons,
        ends=("https://idp.example", "sid") if is_over else None,
    )
    assert shows_hijack(stand) is is_shown
    # Nor by the level of the user.
    assert not shows_hijack(msgspec.structs.replace(stand, session_level="LOW", level="HIGH"))


@pytest.mark.parametrize(
    ("rule", "age_s", "left_s"),
    [
        ({"when": {"auth_age": {"over_s": 60}}}, 10.0, 50.0),
        ({"when": {"auth_age": {"over_s": 60}}}, 60.0, 0.0),
        ({"when": {"auth_age": {"over_s": 60}}}, 61.0, None),
        ({"when": {"auth_age": {"over_s": 60, "within_s": 90}}}, 61.0, 29.0),
        ({"when": {"auth_age": {"over_s": 60}}}, None, None),
        ({"then": {"decision": "STEP_UP", "max_age": 60}}, 10.0, 55.0),
        ({"then": {"decision": "STEP_UP", "max_age": 0}}, 10.0, None),
        ({"when": {"expression": "auth_age_s > 60.0"}}, 10.0, EXPRESSION_BELIEVED_S),
        ({"when": {"expression": "level >= HIGH"}}, 10.0, None),
    ],
)
def test_a_decision_holds_until_the_next_age_that_a_rule_names(
    rule: dict[str, object], age_s: float | None, left_s: float | None
) -> None:
    whole = {"name": "rule", "priority": 1, "then": {"decision": "DENY"}} | rule
    kind = PolicyKind.GLOBAL_SESSION
    policy = parse_policy({"rules": [whole]}, policy_id="global-session", kind=kind)
    until = Ages(policy.rules).until(age_s, NOW)
    assert until == (None if left_s is None else NOW + timedelta(seconds=left_s))


async def test_what_the_release_before_settled_is_read_as_what_was_asked_for(
    database: Database,
) -> None:
    """It has no columns for what was shown, and a proof was of one of the classes asked for."""
    passed = msgspec.structs.replace(stand_at(1, StandState.PASSED), acr="phr phrh")
    async with database.transaction() as connection:
        await write_stands(connection, [passed])
        names = ("amr_any_of", "shown_acr", "shown_amr")
        await connection.execute(sa.update(stands).values(dict.fromkeys(names)))
        found = await stands_at(connection, TENANT, keys={("ses_1", "key-1")})
    assert list(found.values()) == [passed]
    for wanted, is_shown in (("", True), ("phr phrh mfa", True), ("phr", False), ("mfa", False)):
        asked = msgspec.structs.replace(stand_at(2, StandState.ASKED), acr=wanted)
        assert has_shown(passed, asked) is is_shown
    by_method = msgspec.structs.replace(stand_at(2, StandState.ASKED), amr_any_of=("hwk",))
    assert not has_shown(passed, by_method)


@pytest.mark.parametrize(
    ("one", "other", "is_more"),
    [
        ({"acr": "phr"}, {}, True),
        ({}, {"acr": "phr"}, False),
        ({"acr": "phr"}, {"acr": "phr"}, False),
        ({"acr": "phr"}, {"acr": "phr phrh"}, True),
        ({"acr": "phr"}, {"acr": "mfa"}, False),
        ({"amr_any_of": ("hwk",)}, {"amr_any_of": ("fpt", "hwk")}, True),
        ({"amr_any_of": ("hwk",)}, {"acr": "phr"}, False),
        ({}, {"max_age": 60}, True),
        ({"max_age": 30}, {"max_age": 60}, True),
        ({"max_age": 60}, {}, False),
        ({"acr": "phr", "max_age": 60}, {}, False),
    ],
)
def test_one_step_up_asks_for_more_than_another(
    one: dict[str, Any], other: dict[str, Any], *, is_more: bool
) -> None:
    asked = [
        msgspec.structs.replace(stand_at(1, StandState.ASKED), **each) for each in (one, other)
    ]
    assert asks_more(*asked) is is_more


AT_WORK = {"ip": "203.0.113.9", "user_agent": CHROME, "device_token_hash": "a" * 64}


@pytest.mark.parametrize("told_by", ["gateway", "idp"])
@pytest.mark.parametrize(
    ("seen", "is_there"),
    [
        (AT_WORK, True),
        ({"ip": "203.0.113.9"}, True),
        ({"ip": "203.0.113.77"}, True),
        ({"ip": "198.51.100.7"}, False),
        (AT_WORK | {"user_agent": FIREFOX}, False),
        (AT_WORK | {"device_token_hash": "b" * 64}, False),
    ],
)
def test_a_proof_that_falls_short_joins_nothing_that_the_question_compares_equal_with(
    seen: dict[str, Any], *, is_there: bool, told_by: str
) -> None:
    """Whoever tells it: also where the one who asks tells less of the same context."""
    asked = msgspec.structs.replace(
        stand_at(1, StandState.ASKED), acr="phr", context=AT_WORK | {"told_by": "gateway"}
    )
    at = NOW + timedelta(seconds=2)
    told = msgspec.structs.replace(
        stand_at(2, StandState.PASSED), context=seen | {"told_by": told_by}, auth_time=at
    )
    settled = answering(told, [asked], is_whole=True)
    assert settled == (None if is_there else told)
    assert answering(told, [], is_whole=False) is None


def test_who_proves_themselves_again_is_as_good_as_before() -> None:
    """An identity provider says so with a refresh, which speaks of no level."""
    passed = msgspec.structs.replace(stand_at(1, StandState.PASSED), level="HIGH")
    again = msgspec.structs.replace(stand_at(2, StandState.PASSED), level="MEDIUM")
    settled = settle(passed, msgspec.structs.replace(again, shown_acr=("mfa",)))
    assert (settled.stand.level, settled.stand.at, settled.stand.shown_acr) == (
        "HIGH",
        again.at,
        ("mfa",),
    )


@pytest.mark.parametrize(
    ("binding", "passed_s_ago", "is_asked"),
    [("LOW", 3600, False), ("MEDIUM", 601, True), ("MEDIUM", 599, False), ("HIGH", -1, True)],
)
def test_a_step_up_that_a_process_has_not_heard_of_stands_for_no_key(
    *, binding: str, passed_s_ago: int, is_asked: bool
) -> None:
    """Regression: it asked, was told that the context had passed, and let a wrong key pass."""
    asked = msgspec.structs.replace(
        stand_at(0, StandState.ASKED), outdated=outdated_by(Level[binding], NOW)
    )
    settled = settle(stand_at(-passed_s_ago, StandState.PASSED), asked)
    assert (settled.stand.state == StandState.ASKED) is is_asked
