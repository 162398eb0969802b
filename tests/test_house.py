"""The rules of the house that no other tool checks: who may import what, how large things grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ssf", "runtime", "receivers", "transmitters", "risk", "actions", "hub", "conformance")
MODULE_LINES_MAX = 420

#: library -> where it may be imported, as path patterns
HOMES = {
    "sqlalchemy": ("*/store.py", "runtime/*.py", "hub/**/*.py"),
    "alembic": ("hub/migrate.py", "hub/cli.py"),
    "starlette": ("*/routes.py", "hub/**/*.py", "conformance/**/*.py"),
    "uvicorn": ("hub/api.py", "hub/http.py", "conformance/**/*.py"),
    # The middleware runs in the process of an app, which calls the hub.
    "httpx2": ("runtime/pinned.py", "hub/middleware.py", "conformance/**/*.py"),
    "aiohttp": ("runtime/streaming.py", "conformance/**/*.py"),
    "jwcrypto": ("ssf/*.py", "runtime/secrets.py", "runtime/keyring.py", "conformance/**/*.py"),
    "pydantic": ("hub/**/*.py",),
}


@cache
def modules() -> dict[Path, frozenset[str]]:
    """Return module to what it imports, as dotted names; the trees would slow all later tests."""
    return {
        file.relative_to(ROOT): frozenset(imported(ast.parse(file.read_text())))
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
    }


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_only_where_it_is_at_home(library: str) -> None:
    strangers = [
        str(path)
        for path, names in modules().items()
        if library in {name.partition(".")[0] for name in names}
        and not any(matches(path, home) for home in HOMES[library])
    ]
    assert strangers == []


def matches(path: Path, pattern: str) -> bool:
    """Tell whether a path fits: `x/**/` is x and all below, `*/` is any folder."""
    folder, _, name = pattern.rpartition("/")
    if not path.match(name):
        return False
    if folder.endswith("/**"):
        return path.parts[0] == folder.removesuffix("/**")
    return folder == "*" or str(path.parent) == folder


def test_no_middleware_that_costs_a_task_per_request() -> None:
    middleware = "starlette.middleware.base"
    assert [str(path) for path, names in modules().items() if middleware in names] == []


def test_modules_stay_readable() -> None:
    grown = {
        str(path): lines
        for path in modules()
        if (lines := len((ROOT / path).read_text().splitlines())) > MODULE_LINES_MAX
    }
    assert grown == {}


def test_the_deprecated_jose_of_authlib_is_used_nowhere() -> None:
    users = [
        str(path)
        for path, names in modules().items()
        if any(name.startswith("authlib.jose") for name in names)
    ]
    assert users == []
