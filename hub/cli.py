"""The command line: `signalhub …`. Imports per command, so that `--help` stays instant."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from hub.settings import SettingsError, load_settings

OWN_COMMANDS: Final = frozenset(
    {"serve", "migrate", "simulate", "conformance", "demo", "version", "certificate"}
)
SIMULATE_USAGE: Final = (
    "signalhub simulate vendor|idp|app [options]: start a simulated peer; "
    "`signalhub simulate app --help` lists the options of one, conformance/peers/README.md says all"
)

app = typer.Typer(
    name="signalhub",
    help="An open Shared Signals hub: SSF, CAEP and RISC in, risk and containment, logouts out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; trouble the operator can mend ends with one line and exit code 2."""
    # Registering them loads the whole hub, which `serve` in its parent process does without.
    if len(sys.argv) > 1 and sys.argv[1] not in OWN_COMMANDS:
        from hub.admin.commands import register  # noqa: PLC0415

        register(app)
    try:
        app()
    except SettingsError as error:
        fail(str(error))


def fail(text: str) -> NoReturn:
    """End the command with a line on standard error and exit code 2."""
    typer.echo(f"signalhub: {text}", err=True)
    raise SystemExit(2)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (SIGNALHUB_HOST; 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0 lets the system choose (SIGNALHUB_PORT; 8423)."),
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="all, api, worker (SIGNALHUB_ROLE; all).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of api processes (SIGNALHUB_WORKERS; 1).")
    ] = None,
) -> None:
    """Start the hub. With nothing configured it serves loopback and prints what it made up.

    Options win over settings, which are environment variables or lines of signalhub.toml: the
    issuer is SIGNALHUB_ISSUER, the database SIGNALHUB_DATABASE_URL (sqlite:///./signalhub.db).
    docs/operations.md lists all.
    """
    from hub.migrate import SchemaMismatch  # noqa: PLC0415
    from hub.serve import run_folder  # noqa: PLC0415
    from hub.serve import serve as run  # noqa: PLC0415

    with run_folder() as folder:
        settings = load_settings(host=host, port=port, role=role, workers=workers)
        try:
            run(settings, folder)
        except SchemaMismatch as error:
            fail(str(error))


@app.command()
def migrate(
    to: Annotated[str, typer.Option(help="Revision to reach.")] = "head",
) -> None:
    """Bring the database to this release's schema. Safe to repeat."""
    from alembic.util import CommandError  # noqa: PLC0415

    from hub.migrate import migrate as run  # noqa: PLC0415
    from hub.migrate import open_database  # noqa: PLC0415

    async def migrate_to() -> str:
        async with open_database(load_settings().database_url) as database:
            return await run(database, to=to)

    try:
        revision = asyncio.run(migrate_to())
    except CommandError as error:
        fail(str(error))
    typer.echo(f"The database is at revision {revision}.")


@app.command()
def certificate(
    hosts: Annotated[list[str], typer.Argument(help="Names and addresses clients connect to.")],
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = Path("./signalhub-tls"),
    client: Annotated[
        list[str] | None, typer.Option(help="A client that gets a certificate; may be repeated.")
    ] = None,
) -> None:
    """Make a certificate for development, with an authority that clients can be told to trust."""
    from hub.certificates import make_development_certificate  # noqa: PLC0415
    from runtime.clock import SystemClock  # noqa: PLC0415

    try:
        make_development_certificate(folder, hosts, now=SystemClock().now(), clients=client or ())
    except FileExistsError as error:
        fail(f"{error.filename} exists; name another --folder or remove the old files")
    except (OSError, ValueError) as error:
        fail(f"no certificate made: {error}")
    typer.echo(
        f"Serve with it:    SIGNALHUB_TLS_CERT={folder}/cert.pem SIGNALHUB_TLS_KEY={folder}/key.pem"
    )
    typer.echo(f"Clients trust:    {folder}/ca.pem (another hub: SIGNALHUB_EXTRA_CA)")
    for name in client or ():
        typer.echo(f"Client {name}:    {folder}/client-{name}.pem (tls_subject CN={name})")
    if client:
        typer.echo(f"The hub takes them with SIGNALHUB_TLS_CLIENT_CA={folder}/ca.pem")
    typer.echo("It is for development, and valid for 90 days.")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def simulate(context: typer.Context) -> None:
    """Start a simulated peer: vendor, idp or app. `signalhub simulate app --help` lists options."""
    from conformance.peers.start import main as run  # noqa: PLC0415

    if context.args and context.args[0] in {"--help", "-h"}:
        typer.echo(SIMULATE_USAGE)
        return
    if not context.args:
        fail(SIMULATE_USAGE)
    run(context.args[0], context.args[1:])


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def conformance(context: typer.Context) -> None:
    """Test any SSF transmitter or receiver; `signalhub conformance transmitter --help` says how."""
    from conformance.suite.command import main as run  # noqa: PLC0415

    raise SystemExit(run(context.args))


@app.command()
def demo(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the timeline as JSON.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
) -> None:
    """Play the main job with real processes on loopback; exit 0 when every step held."""
    from hub.demo.play import play  # noqa: PLC0415

    raise SystemExit(play(as_json=as_json, keep=keep))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    typer.echo(installed("signalhub"))


if __name__ == "__main__":
    main()
