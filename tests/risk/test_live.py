"""A session in memory: what is kept of it, what is shared, and how it is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from risk.contexts.model import Change, Context, classify
from risk.contexts.parsing import bounded
from risk.contexts.stored import kept_context, render_context, restore_context
from risk.inline.index import Index
from risk.inline.live import ANSWERS_MAX, NOTED_MAX, Live, made
from risk.inline.model import Stand, StandState
from risk.inline.store import STANDS_MAX
from risk.networks.model import IPRecord
from risk.sessions.model import Session
from runtime.clock import SystemClock

NOW = SystemClock().now()
TENANT, ISSUER = "default", "https://idp.example"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def session_of(number: int, *, user_id: str = "usr_1", tenant_id: str = TENANT) -> Session:
    return Session(
        tenant_id=tenant_id,
        iss=ISSUER,
        sid=f"sid-{number}",
        session_id=f"ses_{tenant_id}_{number}",
        user_id=user_id,
        device_id="dev_1",
        app_id=None,
        client=None,
        amr=(),
        acr=None,
        started_at=NOW,
        expires_at=None,
        ended_at=None,
        cookie_sha256=None,
        created_at=NOW,
        updated_at=NOW,
    )


def context_at(number: int) -> Context:
    ip = f"198.51.100.{number % 250}"
    return bounded(
        Context(
            ip=ip,
            chain=(ip,),
            user_agent=AGENT,
            device_token_hash="a" * 64,
            at=NOW,
            record=IPRecord(ip=ip, known=True, asn=64_500, country="DE", city="Bonn"),
        )
    )


def stand_at(number: int, state: StandState = StandState.ACCEPTED) -> Stand:
    here = context_at(number)
    return Stand(
        tenant_id=TENANT,
        session_id="ses_1",
        context_key=f"key-{number}",
        state=state.value,
        level="LOW",
        decision="ALLOW",
        scope="session",
        at=NOW + timedelta(seconds=number),
        since=NOW,
        context=render_context(here),
    )


def live_of() -> Live:
    return made(session_of(1), (), ())


def test_a_context_that_is_kept_is_compared_as_before() -> None:
    """What memory leaves out of a context is nothing that a comparison looks at."""
    before = context_at(1)
    kept = kept_context(before)
    assert kept.key() == before.key()
    for after in (
        before,
        context_at(2),
        replace(before, record=IPRecord(ip=before.ip, known=True, asn=1, country="FR")),
        replace(before, device_token_hash="b" * 64),
        replace(before, signals={"managed": "false"}),
    ):
        assert classify(kept, after) == classify(before, after)
    assert classify(kept, context_at(1)) == (Change.NONE,)


def test_sessions_share_what_is_equal_in_them() -> None:
    first, second = live_of(), live_of()
    for live in (first, second):
        live.use("app_" + "mail")
        live.stand(stand_at(1), context_at(1))
    assert first.apps is second.apps
    (one,), (other,) = first.contexts, second.contexts
    assert one.record is other.record
    assert one.user_agent is other.user_agent
    kept = first.stand_at("key-1")
    assert kept is not None
    assert kept.context == {}


def test_only_known_contexts_are_compared_with() -> None:
    live = live_of()
    live.stand(stand_at(1), context_at(1))
    live.stand(stand_at(2, StandState.DENIED), context_at(2))
    assert [each.ip for each in live.contexts] == ["198.51.100.1"]
    stand = live.stand_at("key-2")
    assert stand is not None
    assert stand.state == StandState.DENIED


def test_a_session_holds_a_bounded_number_of_everything() -> None:
    live = live_of()
    for number in range(NOTED_MAX * 2):
        live.stand(stand_at(number), context_at(number))
        live.keep(("asked", number), number)
        live.note(f"key-{number}", None)
        live.learn(f"key-{number}")
        live.log_out(f"key-{number}", None)
    for number in range(ANSWERS_MAX * 2):
        live.keep(("asked", number), number)
    # The newest, and the first: others are compared with it as long as the session lives.
    assert len(live.met) == STANDS_MAX + 1
    assert next(iter(live.met)) == "key-0"
    assert len(live.answers) == ANSWERS_MAX
    assert list(live.answers.values())[-1] == ANSWERS_MAX * 2 - 1
    for kept in (live.noted, live.learned, live.logged_out):
        assert len(kept) == NOTED_MAX
    assert live.learned[-1] == f"key-{NOTED_MAX * 2 - 1}"


def test_contexts_that_are_kept_out_take_no_room_from_those_others_are_compared_with() -> None:
    live = live_of()
    live.stand(stand_at(0, StandState.ANCHOR), context_at(0))
    for number in range(1, STANDS_MAX * 3):
        live.stand(stand_at(number, StandState.TERMINATED), context_at(number))
    assert [each.ip for each in live.accepted.values()] == ["198.51.100.0"]
    kept = {
        "key-0",
        "key-1",
        *(f"key-{number}" for number in range(STANDS_MAX * 2, STANDS_MAX * 3)),
    }
    assert set(live.met) == kept


def test_as_long_as_nobody_was_let_pass_others_are_compared_with_who_came_first() -> None:
    live = live_of()
    found = [stand_at(number, StandState.DENIED) for number in (1, 2)]
    for stand, number in zip(found, (1, 2), strict=True):
        live.stand(stand, context_at(number))
    for each in (live, made(session_of(1), found[::-1], ())):
        assert each.contexts == []
        assert [context.ip for context in each.accepted.values()] == ["198.51.100.1"]
    live.stand(stand_at(3, StandState.PASSED), context_at(3))
    assert [context.ip for context in live.accepted.values()] == ["198.51.100.3"]


def test_apps_are_logged_out_once() -> None:
    live = live_of()
    assert live.log_out("key-1", ("app_1",))
    assert not live.log_out("key-1", ("app_1",))
    assert live.log_out("key-1", None)


def test_what_is_being_written_outlives_a_new_reading() -> None:
    before = live_of()
    before.stand(stand_at(1), context_at(1), is_pending=True)
    before.stand(stand_at(2), context_at(2), is_pending=True)
    before.written("key-2")
    before.use("app_1")
    read = made(session_of(1), [stand_at(3)], ["app_2"])
    read.follow(before)
    assert set(read.met) == {"key-1", "key-3"}
    assert read.pending == ("key-1",)
    assert read.apps == {"app_1", "app_2"}


def test_a_session_read_again_is_what_it_was() -> None:
    live = live_of()
    for number in (1, 2):
        live.stand(stand_at(number), context_at(number))
    read = made(session_of(1), [stand_at(2), stand_at(1)], ())
    assert read.says() == live.says()
    assert [each.key() for each in read.contexts] == [
        restore_context(stand_at(number).context, NOW).key() for number in (1, 2)
    ]


@pytest.fixture
def index() -> Index:
    """Sessions of one user in one tenant, and one of the same name in another."""
    made_index = Index()
    for number in (1, 2, 3):
        made_index.add((TENANT, ISSUER, f"sid-{number}"), session_of(number))
    made_index.add(("other", ISSUER, "sid-9"), session_of(9, tenant_id="other"))
    return made_index


def test_sessions_are_found_in_their_tenant_only(index: Index) -> None:
    assert index.of_id(TENANT, "ses_default_2") == (TENANT, ISSUER, "sid-2")
    assert index.of_id("other", "ses_default_2") is None


def test_what_is_dropped_is_not_found(index: Index) -> None:
    for number in (1, 2, 3):
        index.drop(session_of(number))
        assert index.of_id(TENANT, f"ses_default_{number}") is None
