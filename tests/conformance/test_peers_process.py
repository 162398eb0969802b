"""A peer as a process: how it starts, says where it is, and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from conformance.peers.options import (
    AppOptions,
    IdPOptions,
    VendorOptions,
    change_options,
    parse_options,
)
from tests.conformance.conftest import running
from tests.conformance.stand_in import eventually

pytestmark = pytest.mark.scenario

# Starts a peer and waits to be killed, so that the peer loses its parent.
PARENT = """
import subprocess, sys
command = [sys.executable, "-m", "conformance.peers", "vendor"]
peer = subprocess.Popen(command, stdout=subprocess.PIPE)
print(peer.stdout.readline().decode(), end="", flush=True)
peer.wait()
"""


def _is_gone(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status == "Z"


@pytest.mark.parametrize("role", ["vendor", "idp", "app"])
def test_the_first_line_names_urls_that_answer(role: str) -> None:
    with running(role, "--port", "0", "--name", "mine") as peer:
        assert peer.urls["peer"] == role
        assert peer.urls["name"] == "mine"
        assert peer.urls["pid"] == peer.process.pid
        assert peer.http.get("/healthz").status_code == 200
        assert httpx2.get(peer.urls["ledger_url"], trust_env=False).json() == []


def test_a_peer_ends_with_exit_code_0_on_sigterm() -> None:
    with running("vendor") as peer:
        assert peer.http.get("/healthz").status_code == 200
        peer.process.send_signal(signal.SIGTERM)
        assert peer.process.wait(20) == 0


def test_a_port_that_is_taken_is_told_in_a_line() -> None:
    with running("vendor") as peer:
        port = peer.urls["base_url"].rpartition(":")[2]
        command = [sys.executable, "-m", "conformance.peers", "app", "--port", port]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert second.stderr.startswith(f"simulate app: cannot listen on 127.0.0.1:{port} (")
    assert len(second.stderr.splitlines()) == 1
    assert second.stdout == ""


def test_a_vendor_that_ends_answers_the_poll_it_holds() -> None:
    command = [sys.executable, "-m", "conformance.peers", "vendor", "--long-poll-s", "60"]
    command += ["--client-secret", "ours"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        urls = json.loads(process.stdout.readline())
        with (
            httpx2.Client(base_url=urls["base_url"], trust_env=False, timeout=60) as http,
            ThreadPoolExecutor(1) as threads,
        ):
            form = {"grant_type": "client_credentials", "scope": "ssf.read ssf.manage"}
            known = (urls["client_id"], urls["client_secret"])
            token = http.post("/token", data=form, auth=known).json()["access_token"]
            http.headers["authorization"] = f"Bearer {token}"
            stream = http.post("/streams", json={"events_requested": []}).json()
            url = stream["delivery"]["endpoint_url"]
            # What it acknowledges is in the ledger before the poll is held.
            held = threads.submit(http.post, url, json={"ack": ["of-the-poll"]})
            assert eventually(lambda: http.get("/ledger?what=ack.").json())
            process.terminate()
            assert held.result(60).json() == {"sets": {}}
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("role", ["vendor", "idp", "app"])
def test_the_help_of_a_peer_says_what_each_option_is_for(role: str) -> None:
    command = [sys.executable, "-m", "conformance.peers", role, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "default: 0" in shown
    assert "port: 0 lets the system choose" in shown
    if role != "vendor":
        assert "hub_token: bearer token for sessions and streams" in shown


def test_a_peer_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = json.loads(parent.stdout.readline())["pid"]
        assert not _is_gone(pid)
        parent.kill()
        assert eventually(lambda: _is_gone(pid))


def test_a_peer_ends_at_the_end_of_standard_input_when_asked_to() -> None:
    command = [sys.executable, "-m", "conformance.peers", "vendor", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_peer_lives_on_without_standard_input() -> None:
    command = [sys.executable, "-m", "conformance.peers", "vendor"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        base_url = json.loads(process.stdout.readline())["base_url"]
        assert httpx2.get(f"{base_url}/healthz", trust_env=False).status_code == 200
        process.terminate()


def test_the_ledger_file_gets_every_entry_before_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with running("app", "--ledger", os.fspath(path)) as app:
        app.post("/control/sessions", {"user": "tina@green.example", "device": "laptop"})
        app.process.kill()
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        assert [entry["what"] for entry in entries] == ["session.opened"]
        assert entries[0]["device"] == "laptop"


def test_the_ledger_is_filtered_by_beginning_number_and_member() -> None:
    with running("app") as app:
        for device in ("laptop", "phone"):
            app.post("/control/sessions", {"user": "tina@green.example", "device": device})
        app.post("/control/fault", {"mode": "ok"})
        assert len(app.ledger()) == 3
        assert len(app.ledger(what="session.")) == 2
        assert [entry["device"] for entry in app.ledger(device="phone")] == ["phone"]
        assert [entry["what"] for entry in app.ledger(after=2)] == ["fault.ordered"]


def test_a_flag_wins_over_the_configuration() -> None:
    options = parse_options(
        AppOptions,
        ["--config", '{"mode": "bcl", "name": "a", "formats": ["email"]}', "--name", "b"],
        program="app",
    )
    assert (options.mode, options.name, options.formats) == ("bcl", "b", ("email",))


def test_lists_are_given_with_commas_and_switches_by_name() -> None:
    options = parse_options(
        AppOptions, ["--formats", "email,opaque", "--connect", "--no-keep-newer"], program="app"
    )
    assert (options.formats, options.connect, options.keep_newer) == (
        ("email", "opaque"),
        True,
        False,
    )


def test_users_come_by_configuration() -> None:
    options = parse_options(
        IdPOptions,
        ["--config", '{"users": [{"id": "u-1", "email": "a@b.example"}]}'],
        program="idp",
    )
    assert options.users[0].email == "a@b.example"


@pytest.mark.parametrize(
    "argv", [["--nothing", "1"], ["--config", '{"nothing": 1}'], ["--config", "["], ["--port", "x"]]
)
def test_unknown_or_broken_options_end_the_start(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_options(VendorOptions, argv, program="vendor")
    assert "error" in capsys.readouterr().err


def test_options_change_while_running_except_those_fixed_at_start() -> None:
    changed = change_options(VendorOptions(), {"push_url": "http://127.0.0.1:1/x"})
    assert changed.push_url == "http://127.0.0.1:1/x"
    for changes in ({"port": 1}, {"nothing": 1}, {"attempts_max": "many"}):
        with pytest.raises(ValueError, match=r"."):
            change_options(VendorOptions(), changes)


def test_an_unknown_peer_is_refused() -> None:
    command = [sys.executable, "-m", "conformance.peers", "nobody"]
    answer = subprocess.run(command, capture_output=True, check=False)
    assert answer.returncode != 0
    assert b"nobody" in answer.stderr
