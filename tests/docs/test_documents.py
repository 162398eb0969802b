"""What the documents say exists, and the requests they show are accepted."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.docs.hubs import PATIENCE_S, ROOT, Serving

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks/README.md",
        ROOT / "conformance/peers/README.md",
    ]
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
_NAME = re.compile(r"\b(?:hub|receivers|risk|actions|transmitters|runtime|ssf)(?:\.[A-Za-z_]+)+")
_HTTP = re.compile(r"```http\n(\w+) \{base\}(\S+)\n(.*?)```", re.DOTALL)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = [link for link in _LINK.findall(document.read_text()) if "://" not in link]
    missing = [link for link in targets if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.requirement("SSF-VER-8")
def test_receivers_are_told_how_long_a_verification_may_take() -> None:
    told = " ".join((ROOT / "docs/integrate-app.md").read_text().split())
    assert "A verification SET is on its way within a second" in told
    assert "give it a minute" in told


def test_the_functions_in_the_diagrams_of_the_readme_exist() -> None:
    diagrams = "\n".join(_MERMAID.findall((ROOT / "README.md").read_text()))
    names = sorted(set(_NAME.findall(diagrams)))
    assert len(names) > 30
    assert [name for name in names if not exists(name)] == []


def exists(name: str) -> bool:
    """Tell whether a dotted name is something that can be imported."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(parts[:index]))
            except ModuleNotFoundError:
                return False
        found = getattr(found, part)
    return True


PACKAGES = ("hub", "receivers", "risk", "actions", "transmitters", "runtime", "ssf")
#: what makes a metric, and its name without what Prometheus's text form adds
METRIC_MAKERS = frozenset({"Counter", "Gauge", "Histogram"})


def our_code() -> Iterator[ast.AST]:
    """Yield every node of the syntax trees of our packages."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield from ast.walk(ast.parse(file.read_text()))


def calls() -> Iterator[tuple[ast.expr, str]]:
    """Yield what is called, and its first argument, for every call in our code with a text."""
    for node in our_code():
        match node:
            case ast.Call(func=called, args=[ast.Constant(value=str(text)), *_]):
                yield called, text


def chosen_events() -> Iterator[str]:
    """Yield the log events that are chosen between two: `event = "a.b" if … else "c.d"`."""
    for node in our_code():
        match node:
            case ast.Assign(
                targets=[ast.Name(id="event")],
                value=ast.IfExp(
                    body=ast.Constant(value=str(one)), orelse=ast.Constant(value=str(other))
                ),
            ):
                yield from (one, other)


def writes_log(called: ast.expr) -> bool:
    """Tell whether this is `log.info`, a `write` chosen between two of them, or such a choice."""
    text = ast.unparse(called)
    return text == "write" or re.match(r"\(?log\.\w+", text) is not None


def listed(column: str) -> set[str]:
    """Return what the tables of docs/operations.md list in the column of this name."""
    found: set[str] = set()
    inside = False
    for line in (ROOT / "docs/operations.md").read_text().splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        inside = bool(first) and (inside or first == column)
        if inside:
            found |= set(re.findall(r"`([^`]+)`", first))
    return found


def test_operations_lists_every_log_event_and_no_other() -> None:
    written = {name for called, name in calls() if writes_log(called)}
    assert len(written) > 20
    assert listed("Event") == written | set(chosen_events())


def test_operations_lists_every_metric_and_no_other() -> None:
    made = {name for called, name in calls() if ast.unparse(called) in METRIC_MAKERS}
    assert len(made) > 10
    assert listed("Metric") == made


def requests_of(document: str) -> list[tuple[str, str, str]]:
    """Return method, path and body of the requests to the hub that a document shows whole."""
    found = []
    for method, path, rest in _HTTP.findall((ROOT / "docs" / document).read_text()):
        body = rest.partition("\n\n")[2]
        # An ellipsis stands for what only a real party has: an id of its own, a signature.
        if "…" not in path + body:
            found.append((method, path, body))
    return found


@pytest.mark.scenario
@pytest.mark.xdist_group("documents")
@pytest.mark.parametrize(
    ("document", "count"), [("integrate-vendor.md", 1), ("integrate-app.md", 3)]
)
def test_a_hub_accepts_the_requests_that_the_documents_show(
    hub: Serving, document: str, count: int
) -> None:
    shown = requests_of(document)
    assert len(shown) == count
    headers = {"authorization": f"Bearer {hub.admin_token}"}
    with httpx2.Client(headers=headers, timeout=PATIENCE_S) as client:
        for method, path, body in shown:
            answer = client.request(
                method,
                hub.url + path.replace("{sid}", "s-1"),
                json=msgspec.json.decode(body),
            )
            assert answer.status_code in {200, 201}, f"{path}: {answer.text}"
