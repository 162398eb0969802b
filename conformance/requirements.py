"""The requirements we answer for, and which test shows each.

`requirements.toml` holds one table per requirement: level, role, source, text and our status:
`built`, or `planned` or `declined` with `adr = "NNNN"`, the decision of `docs/adr/` that says what
it waits for, or why it is left out. Tests name requirements with the marker
`requirement("SET-52", …)`. `python -m conformance.requirements` fails on an unknown id, on a built
MUST without a test, on a row that is not built and whose decision does not name it, and on two
decisions with one number; `--write FILE` renders the coverage table for the documents, which also
says what the conformance suite (`conformance/suite`) checks of any implementation.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
REGISTER: Final = Path(__file__).parent / "requirements.toml"
SUITE: Final = Path(__file__).parent / "suite"
DECISIONS: Final = ROOT / "docs/adr"
_MARKER: Final = re.compile(r"\brequirement\(([^()]*)\)", re.DOTALL)
_CHECK: Final = re.compile(r"@check\(([^()]*)\)[^\n]*\nasync def (\w+)", re.DOTALL)
_RULES: Final = re.compile(r"^(\w+_RULES)[^=\n]*= \(([^()]*)\)", re.DOTALL | re.MULTILINE)
_ID: Final = re.compile(r'"([A-Z0-9]+(?:-[A-Z0-9]+)+)"')
_BINDING: Final = ("MUST", "SHALL", "REQUIRED")
_STATUSES: Final = ("built", "planned", "declined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One row of the register. adr: the decision why it is not built, by number, else empty."""

    requirement_id: str
    level: str
    role: str
    source: str
    text: str
    status: str
    adr: str = ""

    @property
    def binding(self) -> bool:
        """Whether the standard leaves no choice."""
        return any(word in self.level for word in _BINDING)


def read_register(path: Path = REGISTER) -> dict[str, Requirement]:
    """Return the requirements by id. Raises KeyError on a row that lacks a member."""
    rows = tomllib.loads(path.read_text())
    return {
        requirement_id: Requirement(
            requirement_id=requirement_id,
            level=row["level"],
            role=row["role"],
            source=row["source"],
            text=row["text"],
            status=row["status"],
            adr=row.get("adr", ""),
        )
        for requirement_id, row in rows.items()
    }


def read_markers(tests: Path) -> dict[str, list[str]]:
    """Return requirement id to the test files that name it."""
    found: dict[str, list[str]] = {}
    for file in sorted(tests.rglob("*.py")):
        name = str(file.relative_to(tests.parent))
        for marker in _MARKER.finditer(file.read_text()):
            for requirement_id in _ID.findall(marker[1]):
                files = found.setdefault(requirement_id, [])
                if name not in files:
                    files.append(name)
    return found


def read_checks(suite: Path) -> dict[str, list[str]]:
    """Return requirement id to the checks of the conformance suite that judge it."""
    texts = {file: file.read_text() for file in sorted(suite.rglob("*.py"))}
    rules = {name: body for text in texts.values() for name, body in _RULES.findall(text)}
    found: dict[str, list[str]] = {}
    for file, text in texts.items():
        role = file.relative_to(suite).parts[0]
        for declared, name in _CHECK.findall(text):
            for requirement_id in _ID.findall(_spelled_out(declared, rules)):
                checks = found.setdefault(requirement_id, [])
                if f"{role}: {name}" not in checks:
                    checks.append(f"{role}: {name}")
    return found


def _spelled_out(declared: str, rules: Mapping[str, str]) -> str:
    """Put in the ids that a declaration takes over from a named list, as lists do from others."""
    for _ in range(2):
        declared = re.sub(r"\*(\w+_RULES)", lambda m: rules.get(m[1], ""), declared)
    return declared


def read_decisions(folder: Path = DECISIONS) -> dict[str, Path]:
    """Return the number of each decision to its file. Raises ValueError on a repeated number."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.md")):
        number = file.name[:4]
        if number in found:
            raise ValueError(f"{found[number].name} and {file.name} have the same number")
        found[number] = file
    return found


def _find_status_faults(row: Requirement, decisions: Mapping[str, Path]) -> list[str]:
    if row.status not in _STATUSES:
        return [f"{row.requirement_id}: '{row.status}' is none of {', '.join(_STATUSES)}"]
    if row.status == "built":
        return [f"{row.requirement_id}: names a decision but is built"] if row.adr else []
    if row.adr not in decisions:
        return [f"{row.requirement_id}: {row.status}, but there is no decision '{row.adr}'"]
    if not re.search(rf"(?<![\w-]){row.requirement_id}(?![\w-])", decisions[row.adr].read_text()):
        return [f"{row.requirement_id}: {row.status}, but decision {row.adr} does not name it"]
    return []


def find_faults(
    register: Mapping[str, Requirement],
    markers: Mapping[str, Sequence[str]],
    checks: Mapping[str, Sequence[str]],
    decisions: Mapping[str, Path],
) -> list[str]:
    """Return what is wrong, one line each; empty when all is well."""
    unknown = [
        f"{requirement_id}: unknown id, named in {', '.join(files)}"
        for requirement_id, files in markers.items()
        if requirement_id not in register
    ]
    unknown += [
        f"{requirement_id}: unknown id, named by the suite's {', '.join(names)}"
        for requirement_id, names in checks.items()
        if requirement_id not in register
    ]
    untested = [
        f"{row.requirement_id}: {row.level}, said to be built, but no test names it"
        for row in register.values()
        if row.binding and row.status == "built" and row.requirement_id not in markers
    ]
    unclaimed = [
        f"{row.requirement_id}: has a test, so its status is not '{row.status}'"
        for row in register.values()
        if row.status != "built" and row.requirement_id in markers
    ]
    status = [fault for row in register.values() for fault in _find_status_faults(row, decisions)]
    return sorted(unknown) + sorted(untested) + sorted(unclaimed) + sorted(status)


def render_table(
    register: Mapping[str, Requirement],
    markers: Mapping[str, Sequence[str]],
    checks: Mapping[str, Sequence[str]],
    decisions: Mapping[str, Path],
) -> str:
    """Return the coverage table in Markdown."""
    judged = sum(1 for row in register.values() if row.requirement_id in checks)
    tested = sum(1 for row in register.values() if row.requirement_id in markers)
    declined = sum(1 for row in register.values() if row.status == "declined")
    planned = sum(1 for row in register.values() if row.status == "planned")
    lines = [
        "# Requirement coverage",
        "",
        "Generated by `python -m conformance.requirements --write docs/conformance.md`.",
        f"{tested} of {len(register)} requirements are named by a test; {judged} are checked by",
        "`signalhub conformance` of any implementation ([how to run it](conformance-suite.md)).",
        f"{declined} are declined, {planned} planned: the status links to the decision that says",
        "why.",
        "",
        "| Requirement | Level | Role | Source | Status | Tests | `signalhub conformance` |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in register.values():
        files = "<br>".join(f"`{name}`" for name in markers.get(row.requirement_id, ()))
        names = "<br>".join(f"`{name}`" for name in checks.get(row.requirement_id, ()))
        status = f"[{row.status}](adr/{decisions[row.adr].name})" if row.adr else row.status
        lines.append(
            f"| {row.requirement_id} | {row.level} | {row.role} | {row.source} "
            f"| {status} | {files} | {names} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Check, or write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="render the coverage table into this file")
    arguments = parser.parse_args(argv)
    register, markers = read_register(), read_markers(ROOT / "tests")
    checks, decisions = read_checks(SUITE), read_decisions()
    if arguments.write:
        arguments.write.write_text(render_table(register, markers, checks, decisions))
        return 0
    faults = find_faults(register, markers, checks, decisions)
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    if not faults:
        sys.stdout.write(f"{len(register)} requirements, {len(markers)} named by tests\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
