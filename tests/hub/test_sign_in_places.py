"""Where wrong passwords count: by address, by network of IPv6, by device, and never by nothing."""

from __future__ import annotations

import pytest

from risk.signins.failures import NOWHERE, Place, place_of
from tests.hub.conftest import ONE_ENGINE
from tests.hub.story import ROSA
from tests.hub.test_sign_ins import (
    FIREFOX,
    LAPTOP,
    PHONE,
    SIGN_IN,
    Gate,
    brute_force,
    gate,
    names,
)

__all__ = ["gate"]

FAILED = {"phase": "after", "outcome": "failure"}
PROVED = {"phase": "after", "outcome": "success", "amr": ["pwd", "otp"]}


@pytest.mark.parametrize(
    ("ip", "device", "place"),
    [
        ("192.0.2.7", "a", Place("192.0.2.7", is_address=True)),
        ("2001:db8:0:1::7", "a", Place("2001:db8:0:1::/64", is_address=True)),
        ("2001:db8:0:1:ffff::", None, Place("2001:db8:0:1::/64", is_address=True)),
        ("2001:db8:0:2::7", None, Place("2001:db8:0:2::/64", is_address=True)),
        ("", "a", Place("device a")),
        ("", "", NOWHERE),
        ("", None, NOWHERE),
    ],
)
def test_a_place_is_what_one_owner_has(ip: str, device: str | None, place: Place) -> None:
    assert place_of(ip, device) == place


async def tell(gate: Gate, **body: object) -> set[str]:
    """Tell of a sign-in of Rosa's without an address; return what its score is made of."""
    answer = await gate.idp.post(SIGN_IN, json={"user": f"email:{ROSA}"} | body)
    assert answer.status_code == 200, answer.text
    return names(answer.json()) if "login_risk" in answer.json() else set()


async def test_failures_of_no_known_address_are_not_of_one_address(gate: Gate) -> None:
    """Anybody's failures were Rosa's, and her own success the end of a brute force attack."""
    await gate.know_rosa(6)
    for _ in range(12):
        await tell(gate, user_agent="evil/1", device=PHONE, **FAILED)
        await tell(gate, user_agent="evil/1", **FAILED)
        await tell(gate, **FAILED)
    assert "failures" not in await tell(gate, user_agent=FIREFOX, device=LAPTOP)
    assert "failures" not in await tell(gate, user_agent=FIREFOX)
    # On the device where they happened they count.
    assert "failures" in await tell(gate, user_agent=FIREFOX, device=PHONE)
    await tell(gate, user_agent=FIREFOX, device=LAPTOP, **PROVED)
    await tell(gate, user_agent=FIREFOX, device=PHONE, **PROVED)
    assert "failures" not in await tell(gate, user_agent=FIREFOX, device=PHONE)
    assert await brute_force(gate) == []


async def test_who_owns_an_ipv6_network_does_not_escape_by_its_addresses(gate: Gate) -> None:
    await gate.know_rosa(6)
    for number in range(10):
        await gate.ask(ip=f"2001:db8:0:1::{number:x}", device=PHONE, **FAILED)
    assert "failures" in names(await gate.ask(ip="2001:db8:0:1:ffff::", device=PHONE))
    # Whoever is in the network beside it is somebody else.
    assert "failures" not in names(await gate.ask(ip="2001:db8:0:2::1", device=PHONE))
    await gate.ask(ip="2001:db8:0:1::ffff", device=PHONE, **PROVED)
    assert ("MEDIUM", 1.0, "MEDIUM") in await brute_force(gate)


@ONE_ENGINE
async def test_a_network_that_tries_many_names_counts_as_one_address(gate: Gate) -> None:
    for number in range(20):
        await gate.ask(
            f"email:guess{number}@customer.example", ip=f"2001:db8::{number:x}", **FAILED
        )
    assert "failures" in names(await gate.ask(ip="2001:db8::ffff"))
