"""The README's quickstart, as a reader pastes it into a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.docs.hubs import PATIENCE_S, ROOT, Serving, Terminal, free_port

pytestmark = [pytest.mark.scenario, pytest.mark.xdist_group("documents")]

#: of the hub, the vendor and the app, as the README has them
PORTS = ("8423", "9001", "9002")
_BLOCK = re.compile(r"<!-- quickstart: (run|until (.+?)) -->\n```sh\n(.*?)\n```\n", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands to paste. until: the text that the reader waits for, None to run them once."""

    commands: str
    until: str | None


def quickstart(document: str = "README.md") -> list[Block]:
    """Return the blocks of a document's quickstart, in order."""
    text = (ROOT / document).read_text()
    return [
        Block(commands=match[3], until=match[2] and match[2].strip())
        for match in _BLOCK.finditer(text)
    ]


def with_ports(text: str, ports: Sequence[str]) -> str:
    """Return the commands with ports that are free here."""
    for printed, free in zip(PORTS, ports, strict=False):
        text = text.replace(f"127.0.0.1:{printed}", f"127.0.0.1:{free}")
        text = text.replace(f"--port {printed}", f"--port {free}")
    return text


@pytest.fixture
def terminal(hub: Serving) -> Iterator[Terminal]:
    opened = Terminal(hub)
    yield opened
    opened.close()


def test_every_command_of_the_quickstart_runs_as_pasted_and_shows_what_is_promised(
    hub: Serving, terminal: Terminal
) -> None:
    ports = [hub.url.rpartition(":")[2], str(free_port()), str(free_port())]
    printed = pasted(quickstart(), terminal, ports)

    def shown(part: str) -> list[str]:
        return [output for commands, output in printed.items() if part in commands]

    (signed_in,) = shown("/control/sessions")
    assert '"alive":true' in signed_in
    for emitted in shown("/control/emit"):
        assert '"state":"delivered","status":202' in emitted
    risk = shown("user risk")[0]
    assert "Device not compliant" in risk
    assert f"says http://127.0.0.1:{ports[1]}" in risk


def test_the_guide_for_vendors_leads_to_a_verified_stream_both_ways(
    hub: Serving, terminal: Terminal
) -> None:
    ports = [hub.url.rpartition(":")[2], str(free_port())]
    blocks = quickstart("docs/integrate-vendor.md")
    assert [block.until for block in blocks if block.until] == [
        '"stream created"', '"health": "ok"',
    ]  # fmt: skip
    printed = pasted(blocks, terminal, ports)

    (emitted,) = [output for commands, output in printed.items() if "/control/emit" in commands]
    assert '"state":"delivered","status":202' in emitted


def test_the_guide_for_apps_leads_to_a_verified_stream(hub: Serving, terminal: Terminal) -> None:
    blocks = quickstart("docs/integrate-app.md")
    assert len(blocks) == 4
    printed = list(pasted(blocks, terminal, [hub.url.rpartition(":")[2]]).values())

    assert '"spec_version":"1_0"' in printed[1]
    assert '"sets":{"' in printed[2]
    assert '"state":"it works"' in printed[3]
    assert '"sets":{}' in printed[3]


def test_the_guide_for_gateways_shows_what_a_gateway_is_answered(
    hub: Serving, terminal: Terminal
) -> None:
    blocks = quickstart("docs/integrate-gateway.md")
    assert len(blocks) == 5
    printed = list(pasted(blocks, terminal, [hub.url.rpartition(":")[2]]).values())

    passed, nobody = printed[2].split("HTTP/1.1 ")[1:]
    assert passed.startswith("200")
    assert "x-signalhub-decision: ALLOW" in passed
    assert "x-signalhub-user: usr_" in passed
    assert nobody.startswith("302")
    back = "return_to=https%3A%2F%2Fcrm.example.com%2Fruns"
    assert f"location: https://login.example.com/sign-in?{back}" in nobody
    (ended,) = printed[3].split("HTTP/1.1 ")[1:]
    assert ended.startswith("302")
    assert "set-cookie: session=;" in ended
    assert "GATEWAY_TOKEN: shc_" in printed[4]


def test_the_guide_for_identity_providers_goes_through_a_step_up(
    hub: Serving, terminal: Terminal
) -> None:
    blocks = quickstart("docs/integrate-idp.md")
    decisions = ["ALLOW", "STEP_UP", "ALLOW", "TERMINATE"]
    assert [block.until for block in blocks if block.until] == [
        f'"decision":"{decision}"' for decision in decisions
    ]
    printed = list(pasted(blocks, terminal, [hub.url.rpartition(":")[2]]).values())

    assert '"decision":"ALLOW"' in printed[1]
    assert '"status":4' not in "".join(printed)


def pasted(blocks: Sequence[Block], terminal: Terminal, ports: Sequence[str]) -> dict[str, str]:
    """Type the blocks one after the other; return what each printed by its commands."""
    printed = {}
    for block in blocks:
        commands = with_ports(block.commands, ports)
        ends_at = time.monotonic() + PATIENCE_S
        while True:
            code, output = terminal.run(commands)
            assert code == 0, f"{commands}\n{output}"
            if block.until is None or block.until in output:
                break
            assert time.monotonic() < ends_at, f"no {block.until!r}:\n{commands}\n{output}"
        printed[block.commands] = output
    return printed


def test_the_quickstart_goes_from_a_vendor_to_a_closed_containment() -> None:
    """A block that lost its comment would silently not be run."""
    text = (ROOT / "README.md").read_text()
    blocks = quickstart()

    assert text.count("```sh\n") == len(blocks)
    assert [block.until for block in blocks if block.until] == [
        "enabled", '"level": "HIGH"', "[]", '"decision":"DENY"', "closed", '"decision":"ALLOW"',
    ]  # fmt: skip
