"""One hub per SQLite file: a second one beside it would run a second core and disturb the first.

A POSIX record lock on a file beside the database. It belongs to the supervisor alone, also after
forks, and the system drops it however the supervisor ends; so a killed hub starts again at once,
while what it started may still be ending.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from hub.settings import SettingsError

SUFFIX: Final = ".lock"
_PID_BYTES_MAX: Final = 20


@contextmanager
def hold_database(url: str) -> Iterator[None]:
    """Be the only hub on this machine that serves the SQLite file of `url`; else do nothing.

    Raises SettingsError when another process is.
    """
    database = _sqlite_file(url)
    if database is None:
        yield
        return
    # Nothing else may open this file here: closing it anywhere in a process gives the lock up.
    with _lock_file(database) as descriptor:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            owner = os.read(descriptor, _PID_BYTES_MAX).decode(errors="replace").strip()
            raise SettingsError(
                f"SIGNALHUB_DATABASE_URL: {database} is served already by process {owner}; stop "
                "that hub, or serve in another folder for a hub of its own"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield


def _sqlite_file(url: str) -> Path | None:
    """Return the file behind a URL; None for other databases, and for what is no URL."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        return None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    # Another name for the same file is the same hub.
    return Path(parsed.database).resolve()


@contextmanager
def _lock_file(database: Path) -> Iterator[int]:
    try:
        descriptor = os.open(f"{database}{SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"SIGNALHUB_DATABASE_URL: {database}{SUFFIX} cannot be made ({error.strerror}); set it "
            "to a file in a folder this user may write"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
