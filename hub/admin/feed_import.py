"""`signalhub feed import ID FILE`: puts a vendor's file in its place on this node, and compiles."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import quote

import typer

from hub.settings import load_settings
from hub.tenancy import DEFAULT_TENANT
from risk.networks.library import Library
from risk.networks.service import FOLDER

#: the files are on this machine, so is the database that is worked on
HERE: Final = {"url": None, "token": None, "tenant": DEFAULT_TENANT}


def add_feed_commands(
    group: typer.Typer,
    *,
    call: Callable[..., Any],
    show: Callable[..., None],
    fail: Callable[[str], NoReturn],
) -> None:
    """Add `import` to the command group of feeds; the others are those of every group."""

    @group.command(
        "import", help="Put a vendor's file in the place of a feed on this node, and compile."
    )
    def import_(
        feed_id: Annotated[str, typer.Argument(metavar="ID")],
        file: Annotated[Path, typer.Argument(metavar="FILE", help="As the vendor ships it.")],
    ) -> None:
        feed = call("GET", f"/admin/v1/feeds/{quote(feed_id, safe='')}", None, **HERE)
        try:
            place(file, Library(load_settings().data_dir / FOLDER), feed["file"])
        except OSError as error:
            fail(f"{error.filename or file}: {error.strerror}")
        report = call("POST", "/admin/v1/feeds:compile", {}, **HERE)
        show(report, as_json=True)
        (mine,) = (each for each in report["feeds"] if each["id"] == feed_id)
        if mine["outcome"] != "accepted":
            fail(f"{feed['name']}: {mine['outcome']}, {mine['reason']}")


def place(file: Path, library: Library, name: str) -> None:
    """Copy a file into the feeds' folder, whole or not at all, with its time. Raises OSError."""
    library.make()
    descriptor, made = tempfile.mkstemp(dir=library.feeds, prefix=f".{name}-")
    os.close(descriptor)
    try:
        shutil.copy2(file, made)
        Path(made).replace(library.feeds / name)
    finally:
        with suppress(FileNotFoundError):
            Path(made).unlink()
