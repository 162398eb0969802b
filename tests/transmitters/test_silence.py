"""Shares of the places for pushes that are not answered: who may begin while others are silent."""

from __future__ import annotations

from collections.abc import Callable

from runtime.clock import from_epoch_s
from runtime.lanes import PLACED, SETTLING, SILENT, SILENT_AFTER_S, WINDOW
from runtime.outbound import CONNECTIONS_PER_HOST_MAX
from transmitters.delivery.model import PushTarget, PushWork
from transmitters.model import PendingSET, StoredEvent
from transmitters.selection import Places
from transmitters.silence import QUICK_MAX, SILENT_MAX, Silence

EVENT = StoredEvent(event_type="https://e.example/t", payload={}, subjects=[], txn="t", toe=None)


def target(
    stream_id: str,
    *,
    tenant_id: str = "acme",
    client_id: str = "cli_a",
    failures: int = 0,
    host: str | None = None,
) -> PushTarget:
    return PushTarget(
        tenant_id=tenant_id,
        stream_id=stream_id,
        client_id=client_id,
        bucket=0,
        endpoint_url=f"https://{host or stream_id}.example/ssf",
        authorization_header_sealed=None,
        aud=("aud",),
        subject_format=None,
        failures=failures,
        failing_since=None,
    )


def work(of: PushTarget) -> PushWork:
    return PushWork(
        target=of,
        ordering_key="rosa",
        queued_at=from_epoch_s(0),
        pending=PendingSET(jti="jti", iat=0, kid=None, attempts=0, event=EVENT),
    )


class Hub:
    """Pushes under way, none of them answered."""

    def __init__(self) -> None:
        self.silence = Silence()
        self.busy: dict[str, int] = {}

    def admits(self, of: PushTarget) -> bool:
        """Tell whether one more push may begin now."""
        return Places(self.busy, self.silence, suspended=()).has_room(of)

    def start(self, of: PushTarget) -> None:
        begun = work(of)
        self.silence.begun(begun)
        self.busy[begun.lane] = PLACED

    def fill(self, made: Callable[[int], PushTarget]) -> int:
        """Begin as many as may, window by window, each of another stream; return how many."""
        count = 0
        while True:
            places = Places(self.busy, self.silence, suspended=())
            wave = 0
            while wave < WINDOW and places.has_room(made(count + wave)):
                places.take(made(count + wave))
                self.start(made(count + wave))
                wave += 1
            if not wave:
                return count
            count += wave
            self.busy = dict.fromkeys(self.busy, SILENT)

    def learn(self, of: PushTarget, answered_after_s: float | None = 0.01) -> None:
        self.silence.learn(of, answered_after_s)


def test_silent_streams_of_a_client_leave_room_for_all_others() -> None:
    hub = Hub()
    good = target("good")
    hub.learn(good)
    assert hub.fill(lambda n: target(f"silent-{n}")) < SILENT_MAX
    assert not hub.admits(target("more"))
    assert hub.admits(good)
    assert hub.admits(target("fresh", tenant_id="other"))


def test_a_client_alone_takes_no_place_from_other_clients_of_its_tenant() -> None:
    hub = Hub()
    for number in range(WINDOW):
        hub.start(target(f"silent-{number}"))
    hub.busy = dict.fromkeys(hub.busy, SILENT)
    assert not hub.admits(target("more"))
    assert hub.admits(target("fresh", client_id="cli_b"))


def test_silent_clients_of_a_tenant_leave_room_for_its_streams_that_answer() -> None:
    hub = Hub()
    good = target("good", client_id="cli_1")
    hub.learn(good)
    hub.fill(lambda n: target(f"silent-{n}", client_id=f"cli_{n}"))
    assert not hub.admits(target("fresh", client_id="cli_new"))
    assert hub.admits(good)


def test_streams_that_answered_and_fall_silent_leave_room_for_other_tenants() -> None:
    hub = Hub()
    for number in range(1_000):
        hub.learn(target(f"was-good-{number}"))
    good = target("good", tenant_id="other")
    hub.learn(good)
    assert hub.fill(lambda n: target(f"was-good-{n}")) < SILENT_MAX + WINDOW / 2
    assert hub.admits(good)


def test_silent_streams_of_all_tenants_leave_room_for_those_that_answer() -> None:
    hub = Hub()
    good = target("good")
    hub.learn(good)
    assert hub.fill(lambda n: target(f"silent-{n}", tenant_id=f"tenant-{n}")) <= SILENT_MAX
    assert not hub.admits(target("fresh", tenant_id="other"))
    assert hub.admits(good)


def test_streams_that_fail_leave_room_for_those_that_nobody_knows() -> None:
    hub = Hub()
    assert hub.fill(lambda n: target(f"dead-{n}", tenant_id=f"tenant-{n}", failures=3)) < SILENT_MAX
    assert not hub.admits(target("dead", tenant_id="other", failures=1))
    assert hub.admits(target("fresh", tenant_id="other"))


def test_streams_that_fail_leave_room_for_new_ones_of_their_own_client() -> None:
    hub = Hub()
    hub.fill(lambda n: target(f"dead-{n}", failures=3))
    assert not hub.admits(target("dead", failures=1))
    assert hub.admits(target("fresh"))


def test_silent_streams_leave_connections_of_their_host_to_others() -> None:
    hub = Hub()
    good = target("good", host="shared")
    hub.learn(good)

    def dead(number: int) -> PushTarget:
        return target(f"dead-{number}", client_id=f"cli_{number}", failures=1, host="shared")

    assert hub.fill(dead) <= CONNECTIONS_PER_HOST_MAX / 2
    assert hub.admits(target("fresh", host="SHARED"))
    hub.fill(lambda n: target(f"new-{n}", client_id=f"cli_{n}", host="shared"))
    assert not hub.admits(target("fresh", host="shared"))
    assert hub.admits(target("fresh", host="another"))
    assert hub.admits(good)


def test_what_is_answered_or_only_just_begun_counts_nowhere() -> None:
    hub = Hub()
    for number in range(SILENT_MAX):
        hub.start(target(f"new-{number}"))
    assert hub.admits(target("fresh"))
    hub.busy = dict.fromkeys(hub.busy, SETTLING)
    assert hub.admits(target("fresh"))
    for number in range(SILENT_MAX):
        hub.silence.over(work(target(f"new-{number}")))
    hub.busy = dict.fromkeys(hub.busy, SILENT)
    assert hub.admits(target("fresh"))


def test_who_answers_late_or_not_at_all_is_known_no_more() -> None:
    hub = Hub()
    good, late, gone, first = (target(name) for name in ("good", "late", "gone", "first"))
    for one in (first, good, late, gone):
        hub.learn(one)
    hub.learn(late, SILENT_AFTER_S)
    hub.learn(gone, None)
    hub.fill(lambda n: target(f"silent-{n}", client_id=f"cli_{n}"))
    assert [hub.admits(one) for one in (first, good, late, gone)] == [True, True, False, False]
    for number in range(QUICK_MAX - 1):
        hub.learn(target(f"other-{number}"))
    # The one that has answered longest ago is forgotten.
    assert [hub.admits(one) for one in (first, good)] == [False, True]
