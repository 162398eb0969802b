"""The suite's command line: what it refuses, and what its reports look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from conformance.requirements import SUITE, read_checks, read_register
from conformance.suite.checks import Check, Finding, Outcome, Result, Verdict, run_check
from conformance.suite.command import main
from conformance.suite.receiver.run import CHECKS as RECEIVER
from conformance.suite.report import Report, render_json, render_junit, render_table
from conformance.suite.transmitter.run import CHECKS

ISSUER = "https://tx.example"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "signalhub conformance transmitter"),
        (["vendor"], "signalhub conformance transmitter"),
        (["transmitter"], "name the ISSUER"),
        (["transmitter", "tx.example", "--token", "t"], "begins with https://"),
        (["transmitter", ISSUER], "either --token, or --client-id"),
        (["transmitter", ISSUER, "--token", "t", "--client-id", "c"], "either --token"),
        (["transmitter", ISSUER, "--token", "t", "--push-cert", "x"], "belong together"),
        (["transmitter", ISSUER, "--token", "t", "--push-bind", "9443"], "HOST:PORT"),
        (["transmitter", ISSUER, "--token", "t", "--trigger-header", "x"], "NAME: VALUE"),
        (["transmitter", ISSUER, "--token", "t", "--ca", "/nowhere/ca.pem"], "--ca"),
        (["transmitter", ISSUER, "--token", "t", "--push-bind", "192.0.2.1:1"], "--push-bind"),
        (["transmitter", ISSUER, "--profile", "other"], "--profile"),
        (["receiver"], "name the PUSH_URL"),
        (["receiver", "rx.example", "--audience", "x"], "begins with https://"),
        (["receiver", "https://rx.example", "--client", "--audience", "x"], "name the PUSH_URL"),
        (["receiver", "--client"], "--audience"),
        (["receiver", "--client", "--audience", "x", "--cert", "c"], "belong together"),
        (["receiver", "--client", "--audience", "x", "--bind", "x"], "HOST:PORT"),
        (["receiver", "--client", "--audience", "x", "--ca", "/nowhere.pem"], "--ca"),
    ],
)
def test_wrong_use_says_what_to_do_and_is_no_verdict(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert told in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    with pytest.raises(SystemExit) as end:
        main(["transmitter", "--help"])
    assert end.value.code == 0
    assert "examples:" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["receiver", "--help"])
    assert "examples:" in capsys.readouterr().out
    assert main(["receiver", "--list"]) == 0
    assert main(["transmitter", "--list"]) == 0
    assert "verification\n" in capsys.readouterr().out


def result(name: str, *findings: Finding) -> Result:
    return Result(
        name=name, variant="push", title=name, requirement_ids=("SET-1",), findings=findings,
        duration_s=0.1,
    )  # fmt: skip


def finding(outcome: Outcome, *ids: str, text: str = "") -> Finding:
    return Finding(requirement_ids=ids, outcome=outcome, text=text)


def report(*results: Result, strict: bool = False) -> Report:
    return Report(role="transmitter", target=ISSUER, strict=strict, results=results)


def test_the_worst_finding_of_a_requirement_counts() -> None:
    found = report(
        result("one", finding(Outcome.PASS, "SET-10", "SET-2"), finding(Outcome.WARN, "SET-2")),
        result(
            "two", finding(Outcome.FAIL, "SET-10", text="<\x00>"), finding(Outcome.SKIP, "SET-9")
        ),
    )
    assert [(name, told[0]) for name, told in found.by_requirement.items()] == [
        ("SET-2", Outcome.WARN),
        ("SET-9", Outcome.SKIP),
        ("SET-10", Outcome.FAIL),
    ]
    assert found.failed
    assert render_table(found).endswith("NOT CONFORMANT\n")
    assert json.loads(render_json(found))["requirements"]["SET-10"]["outcome"] == "fail"
    junit = ET.fromstring(render_junit(found))  # noqa: S314 - our own
    assert (junit.get("tests"), junit.get("failures")) == ("2", "1")
    assert len(junit.findall("testcase/failure")) == 1


def test_warnings_fail_only_when_strict_and_nothing_judged_fails_always() -> None:
    warned = result("one", finding(Outcome.PASS, "SET-1"))
    soft = result("two", finding(Outcome.WARN, "SET-2"))
    assert not report(warned, soft).failed
    assert report(warned, soft, strict=True).failed
    assert report(result("none", finding(Outcome.SKIP, "SET-1"))).failed
    assert report().failed


async def test_a_bug_of_the_suite_is_no_pass() -> None:
    async def broken(_party: object, v: Verdict) -> None:
        v.must(True, "SET-1", told="fine so far")  # noqa: FBT003
        v.must(True, "SET-99", told="not declared")  # noqa: FBT003

    check: Check[object] = Check(
        name="broken", title="broken", requirement_ids=("SET-1", "SET-2"), group="each", run=broken
    )
    done = await run_check(check, object(), variant="once", limit_s=5.0, troubles=(OSError,))
    assert done.outcome is Outcome.FAIL
    assert done.findings[-1].requirement_ids == ("SET-2",)
    assert "a bug of the suite" in done.findings[-1].text


def test_the_table_of_documents_knows_every_check() -> None:
    read = read_checks(SUITE)
    everything: list[Check[Any]] = [*CHECKS, *RECEIVER]
    declared = {each for one in everything for each in one.requirement_ids}
    assert declared <= read.keys() <= read_register().keys()
    assert "transmitter: verification" in read["CTS-1"]
    assert "receiver: bad_sets" in read["SET-53"]
    assert Path(SUITE, "command.py").exists()
