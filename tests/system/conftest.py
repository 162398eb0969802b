"""Real servers from Debian's packages. What is missing is installed, or the test fails saying what.

Nothing here is skipped: a machine that cannot run these tests has not passed them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

POSTGRESQL_PACKAGE = "postgresql"
POSTGRESQL_BINARIES = Path("/usr/lib/postgresql")
SERVER_USER = "postgres"
INSTALL_S = 600


def install(package: str) -> None:
    """Install a Debian package when this user may; fail with what to do when not."""
    if os.geteuid() != 0:
        pytest.fail(f"missing Debian package: run 'sudo apt-get install {package}', then try again")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "--quiet"], ["install", "--quiet", "--yes", package]):
        done = subprocess.run(
            ["apt-get", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"apt-get {' '.join(command)} failed: {done.stderr[-500:]}")


def postgresql_binaries() -> Path:
    """Return the folder of the newest Debian PostgreSQL's programs, installing one if needed."""
    for attempt in range(2):
        found = sorted(POSTGRESQL_BINARIES.glob("*/bin/initdb"))
        if found:
            return found[-1].parent
        if attempt == 0:
            install(POSTGRESQL_PACKAGE)
    pytest.fail(f"no initdb below {POSTGRESQL_BINARIES} after installing {POSTGRESQL_PACKAGE}")


@pytest.fixture(scope="session")
def debian_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server of Debian's package, on a socket in its own folder."""
    binaries = postgresql_binaries()
    folder = Path("/tmp") / f"signalhub-system-{os.getpid()}"
    folder.mkdir(mode=0o755)
    prefix: list[str] = []
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root; Debian's package brings a user for it.
        shutil.chown(folder, SERVER_USER)
        prefix = ["runuser", "-u", SERVER_USER, "--"]
    data = folder / "data"
    control = [*prefix, str(binaries / "pg_ctl"), "--pgdata", str(data), "--wait"]
    run([*prefix, str(binaries / "initdb"), "--pgdata", str(data), "--auth=trust", "-U", "hub"])
    run([*control, "--log", str(folder / "log"), "-o", f"-h '' -k {folder}", "start"])
    try:
        yield f"postgresql://hub@/postgres?host={folder}"
    finally:
        run([*control, "--mode=immediate", "stop"])
        shutil.rmtree(folder)


def run(command: list[str]) -> None:
    """Run a program; fail with its words when it does."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        # pg_ctl's server inherits the output: without a file of its own it would hold ours open.
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}: {done.stdout[-1000:]}")
