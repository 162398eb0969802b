"""`signalhub webhook test`: what a vendor's message would become. Needs no database and no hub."""

# No deferred annotations here: the command line is read from them.
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from receivers.webhooks import profiles
from receivers.webhooks.mapping import MappedSignal, Unmappable, apply
from receivers.webhooks.rules import compile_mapping
from receivers.webhooks.service import read_message
from runtime.errors import Invalid
from ssf.errors import SharedSignalsError
from ssf.events.registry import parse_event, render_event
from ssf.subject import parse_subject, render_subject


def add_mapping_commands(group: typer.Typer) -> None:
    """Add `test` and `profiles` to a command group."""

    @group.command("test", help="Show what a vendor's message would become; nothing is stored.")
    def test(
        message: Annotated[Path, typer.Argument(metavar="FILE", help="The message as JSON.")],
        profile: Annotated[str | None, typer.Option(help="A ready mapping.")] = None,
        mapping: Annotated[Path | None, typer.Option(help="A mapping of your own.")] = None,
    ) -> None:
        if (profile is None) == (mapping is None):
            _fail("name one of --profile and --mapping")
        try:
            _show(dry_run(message, profile=profile, mapping=mapping))
        except Invalid as error:
            missing = "".join(f"\n  {at}: {text}" for at, text in error.pointers)
            _fail(f"{error.detail}{missing}")
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}")

    @group.command("profiles", help="List the ready mappings, and whether each was verified.")
    def list_profiles() -> None:
        _show(shown_profiles())


def dry_run(message: Path, *, profile: str | None, mapping: Path | None) -> dict[str, Any]:
    """Return the signals that a message in a file would become.

    Exactly one of profile and mapping. Raises Invalid with what is missing, and OSError.
    """
    if profile is not None:
        rules = profiles.find(profile).mapping
    else:
        try:
            rules = compile_mapping(msgspec.json.decode(mapping.read_bytes() if mapping else b""))
        except msgspec.DecodeError as error:
            raise Invalid(f"The mapping is not JSON: {error}.") from error
    try:
        return {
            "signals": [_shown(each) for each in apply(rules, read_message(message.read_bytes()))]
        }
    except Unmappable as trouble:
        raise Invalid("The message cannot be mapped.", pointers=trouble.missing) from trouble
    except SharedSignalsError as error:
        raise Invalid(f"The mapping makes no valid event: {error.description}.") from error


def shown_profiles() -> list[dict[str, Any]]:
    """Return the mappings that come with the hub, and what each rests on."""
    found = [profiles.find(name) for name in profiles.names()]
    return [
        {
            "profile": each.name,
            "title": each.title,
            "verified": each.verified,
            "why": each.why,
            "sources": each.sources,
            "retrieved": each.retrieved,
            "signature": each.signature,
        }
        for each in found
    ]


def _shown(mapped: MappedSignal) -> dict[str, Any]:
    return {
        "rule": mapped.rule,
        "event_type": mapped.event_type,
        "sub_id": render_subject(parse_subject(mapped.sub_id)),
        "payload": render_event(parse_event(mapped.event_type, mapped.payload)),
        "occurred_at": mapped.occurred_at,
        "vendor_id": mapped.vendor_id,
    }


def _show(document: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(document)).decode())


def _fail(text: str) -> NoReturn:
    typer.echo(f"signalhub: {text}", err=True)
    raise SystemExit(2)
