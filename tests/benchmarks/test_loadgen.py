"""The load generator counts every request once, in closed and in open loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.figures import percentiles, table
from benchmarks.loadgen import Load, build_requests, run_load
from benchmarks.serving import ServerProcess, cpu_s, running


def test_percentiles_are_samples_that_were_seen() -> None:
    found = percentiles([float(number) for number in range(1, 101)])
    assert (found.samples, found.p50, found.p95, found.p99, found.maximum) == (100, 50, 95, 99, 100)


def test_no_samples_give_zeroes_and_not_an_error() -> None:
    assert percentiles([]).maximum == 0


def test_a_table_aligns_names_left_and_figures_right() -> None:
    assert table(("name", "n"), [("a", "1000")]) == "name     n\n----  ----\na     1000"


def test_requests_are_complete_http_messages_with_the_set_media_type() -> None:
    (request,) = build_requests("http://h.example:81/events", [b"a.b.c"], bearer_token="t")
    assert request.startswith(b"POST /events HTTP/1.1\r\nHost: h.example:81\r\n")
    assert b"\r\nContent-Type: application/secevent+jwt\r\n" in request
    assert request.endswith(b"Content-Length: 5\r\n\r\na.b.c")


@pytest.fixture(scope="module")
def noop() -> Iterator[ServerProcess]:
    with running(["benchmarks.noop_app"]) as server:
        yield server


@pytest.fixture
def tokens_file(tmp_path: Path) -> str:
    path = tmp_path / "tokens.txt"
    path.write_bytes(b"".join(b"token.%d.x\n" % number for number in range(400)))
    return str(path)


@pytest.mark.scenario
@pytest.mark.parametrize("rate_per_s", [None, 2_000.0], ids=["closed loop", "open loop"])
def test_every_request_is_sent_and_answered_once(
    noop: ServerProcess, tokens_file: str, rate_per_s: float | None
) -> None:
    load = Load(
        url=f"{noop.url}/events",
        tokens_file=tokens_file,
        bearer_token="t",
        first=100,
        count=300,
        connections=8,
        rate_per_s=rate_per_s,
    )
    report = run_load(load)
    assert report.statuses == {202: 300}
    assert report.latency_ms.samples == 300
    assert cpu_s(noop.pid) > 0


@pytest.mark.scenario
def test_an_answer_that_refuses_is_counted_under_its_status(
    noop: ServerProcess, tokens_file: str
) -> None:
    load = Load(
        url=f"{noop.url}/elsewhere",
        tokens_file=tokens_file,
        bearer_token="t",
        first=0,
        count=20,
        connections=2,
    )
    assert run_load(load).statuses == {404: 20}
