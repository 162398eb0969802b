"""What a run found: a table for people, JSON and JUnit for machines, and the exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from conformance.suite.checks import Outcome, Result, worst

EVIDENCE_SHOWN_CHARS: Final = 140
_NUMBER: Final = re.compile(r"(\d+)")
#: what XML 1.0 cannot carry
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run. strict: warnings count as failures."""

    role: str
    target: str
    strict: bool
    results: tuple[Result, ...]

    @property
    def by_requirement(self) -> Mapping[str, tuple[Outcome, str]]:
        """Requirement id to its worst outcome and the text of it, in reading order."""
        found: dict[str, list[tuple[Outcome, str]]] = {}
        for result in self.results:
            for one in result.findings:
                for requirement_id in one.requirement_ids:
                    told = f"{result.name} ({result.variant}): {one.text}"
                    found.setdefault(requirement_id, []).append((one.outcome, told))
        return {
            requirement_id: _worst_of(found[requirement_id])
            for requirement_id in sorted(found, key=_reading_order)
        }

    @property
    def failed(self) -> bool:
        """Whether the exit code says so: a failure, with `strict` also a warning, or no pass."""
        outcomes = {result.outcome for result in self.results}
        bad = {Outcome.FAIL, Outcome.WARN} if self.strict else {Outcome.FAIL}
        return bool(outcomes & bad) or Outcome.PASS not in outcomes

    def counts(self) -> Mapping[Outcome, int]:
        """How many requirements came to which outcome."""
        outcomes = [outcome for outcome, _ in self.by_requirement.values()]
        return {outcome: outcomes.count(outcome) for outcome in Outcome}


def _worst_of(found: Sequence[tuple[Outcome, str]]) -> tuple[Outcome, str]:
    outcome = worst(each for each, _ in found)
    return next((each, text) for each, text in found if each is outcome)


def _reading_order(requirement_id: str) -> list[str | int]:
    parts = _NUMBER.split(requirement_id)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def render_table(report: Report) -> str:
    """Render the table by requirement id, and what failed."""
    lines = [f"{'REQUIREMENT':<14} RESULT  EVIDENCE"]
    for requirement_id, (outcome, text) in report.by_requirement.items():
        shown = " ".join(text.split())[:EVIDENCE_SHOWN_CHARS]
        lines.append(f"{requirement_id:<14} {outcome.upper():<7} {shown}")
    failures = [
        f"  {result.name} ({result.variant}): {', '.join(one.requirement_ids)}: {one.text}"
        for result in report.results
        for one in result.findings
        if one.outcome in {Outcome.FAIL, Outcome.WARN}
    ]
    if failures:
        lines += ["", "What did not hold:", *failures]
    told = ", ".join(f"{count} {outcome}" for outcome, count in report.counts().items())
    lines += [
        "",
        f"{len(report.results)} checks, {len(report.by_requirement)} requirements: {told}",
    ]
    lines.append("NOT CONFORMANT" if report.failed else "conformant as far as checked")
    return "\n".join(lines) + "\n"


def render_json(report: Report) -> str:
    """Render the run as one JSON document."""
    document = {
        "role": report.role,
        "target": report.target,
        "failed": report.failed,
        "requirements": {
            requirement_id: {"outcome": outcome, "evidence": text}
            for requirement_id, (outcome, text) in report.by_requirement.items()
        },
        "checks": [
            {
                "name": result.name,
                "variant": result.variant,
                "title": result.title,
                "outcome": result.outcome,
                "duration_s": round(result.duration_s, 3),
                "findings": [
                    {
                        "requirements": list(one.requirement_ids),
                        "outcome": one.outcome,
                        "text": one.text,
                    }
                    for one in result.findings
                ],
            }
            for result in report.results
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def render_junit(report: Report) -> str:
    """Render the run as JUnit XML: one test case per check and variant."""
    suite = ET.Element("testsuite", name=f"conformance {report.role}")
    failures = skipped = 0
    for result in report.results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"conformance.{report.role}.{result.variant}",
            name=f"{result.name} [{' '.join(result.requirement_ids)}]",
            time=f"{result.duration_s:.3f}",
        )
        told = "\n".join(
            f"{one.outcome} {', '.join(one.requirement_ids)}: {one.text}" for one in result.findings
        )
        text = _NOT_XML.sub("\ufffd", told)
        bad = result.outcome is Outcome.FAIL or (report.strict and result.outcome is Outcome.WARN)
        if bad:
            failures += 1
            ET.SubElement(case, "failure", message=result.title).text = text
        elif result.outcome is Outcome.SKIP:
            skipped += 1
            ET.SubElement(case, "skipped", message=text[:EVIDENCE_SHOWN_CHARS])
        ET.SubElement(case, "system-out").text = text
    suite.set("tests", str(len(report.results)))
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
