"""Request bodies from the words of a command: NAME=VALUE, or a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import typer

from hub.admin.bodies import Body


def parse_fields(body: type[Body], fields: Sequence[str], file: Path | None) -> dict[str, Any]:
    """Return a request body from NAME=VALUE words, over the members of a JSON file."""
    document = read_body(file) if file else {}
    for word in fields:
        name, separator, text = word.partition("=")
        if not separator:
            fail(f"{word!r} is not NAME=VALUE; members are {members_of(body)}")
        if name not in body.model_fields:
            fail(f"{name!r} is no member; members are {members_of(body)}")
        document[name] = _value(name, text, str(body.model_fields[name].annotation))
    return document


def read_body(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file; ends the command when there is none."""
    try:
        document = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        fail(f"{file} is not JSON: {error}")
    if not isinstance(document, dict):
        fail(f"{file} is not a JSON object")
    return document


def _value(name: str, text: str, annotation: str) -> Any:
    if text[:1] in {"{", "["} or text in {"true", "false", "null"}:
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            fail(f"{name}: not JSON: {error}")
    if "list[" in annotation:
        return [part for part in text.split(",") if part]
    if "int" in annotation and text.lstrip("-").isdigit():
        return int(text)
    return text


def members_of(body: type[Body]) -> str:
    """Return the names of a body's members, as help and complaints show them."""
    return ", ".join(
        f"{name} (needed)" if field.is_required() else name
        for name, field in body.model_fields.items()
    )


def fail(text: str) -> NoReturn:
    """End the command with a line on standard error and exit code 2."""
    typer.echo(f"signalhub: {text}", err=True)
    raise SystemExit(2)
