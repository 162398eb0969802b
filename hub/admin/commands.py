"""Admin objects on the command line: `signalhub provider add name=… issuer=…`.

Works on the database of the settings; with `--url` and `--token` on a running hub.
"""

# No deferred annotations here: the command line is read from them, and some name a kind's filters.
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import msgspec
import typer

from hub.admin.bodies import Body
from hub.admin.client import AdminClient, LocalClient, RemoteClient, tenant_url
from hub.admin.feed_import import add_feed_commands
from hub.admin.fields import fail, members_of, parse_fields, read_body
from hub.admin.kinds import PAGE_MAX, PREFIX, Action, Kind
from hub.admin.mapping_test import add_mapping_commands
from hub.admin.policy_commands import SPECIAL_ACTIONS
from hub.admin.routes import ALL_KINDS
from hub.admin.tables import cell, table
from hub.app import make_trusted_app
from hub.bootstrap import MadeUp, prepare, secret_key
from hub.migrate import SchemaMismatch
from hub.node import ProcessConfig, open_node
from hub.settings import PREFIX as SETTING_PREFIX
from hub.settings import load_settings
from hub.tenancy import DEFAULT_TENANT
from runtime.errors import Unavailable
from runtime.logs import configure_logs
from runtime.outbound import TIMEOUT_S
from runtime.pinned import PinnedOutbound

URL = Annotated[str | None, typer.Option("--url", help="Issuer URL of a running hub.")]
TOKEN = Annotated[str | None, typer.Option("--token", help="Admin token, with --url.")]
TENANT = Annotated[str, typer.Option("--tenant", help="Tenant to work on.")]
JSON_OUT = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ONLY = Annotated[
    str | None, typer.Option("--only", help="Print this member alone, such as id; for scripts.")
]
FIELDS = Annotated[
    list[str] | None,
    typer.Argument(help="Members as NAME=VALUE; lists with commas, objects as JSON."),
]
FILE_OR_FIELDS = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE] [NAME=VALUE]...",
        help="A JSON file with the body, and members as NAME=VALUE; lists with commas.",
    ),
]
BODY_FILE = Annotated[
    Path | None, typer.Option("--body", help="Read the whole body from a JSON file.")
]
ERROR: Final = 400
LIST_ITEMS_MAX: Final = 1_000
UNAUTHORIZED: Final = 401
HOW_TO_GET_IN: Final = (
    "Make one where the hub runs: signalhub client add name=me scopes=admin.read,admin.write"
    " --only token"
)
HOW_TO_REACH: Final = "Is the hub running there, and is this its issuer URL?"


def register(app: typer.Typer) -> None:
    """Add one command group per kind of object."""
    for kind in ALL_KINDS:
        group = _group(kind)
        if kind.name == "users":
            _add_risk(group)
        if kind.name == "feeds":
            add_feed_commands(group, call=_call, show=_show, fail=fail)
        if kind.name == "webhooks":
            add_mapping_commands(group)
        app.add_typer(group, name=command_of(kind))


def command_of(kind: Kind) -> str:
    """Return the name of a kind's command group."""
    return re.sub(r"[_ ]", "-", kind.item)


def _named(kind: Kind) -> str:
    """Return one of a kind with its article."""
    article = "an" if kind.item[0] in "aeiou" and kind.item != "user" else "a"
    return f"{article} {kind.item.replace('_', ' ')}"


def _group(kind: Kind) -> typer.Typer:
    group = typer.Typer(help=f"Work with {kind.summary}.", no_args_is_help=True)

    @group.command("list", help=f"List {kind.summary}.")
    def list_(
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
        *,
        as_json: JSON_OUT = False,
        where: Annotated[
            list[str] | None, typer.Option(help=f"Filter NAME=VALUE: {', '.join(kind.filters)}.")
        ] = None,
    ) -> None:
        query = _query(kind, where or [])
        document = _call_list(f"{PREFIX}/{kind.name}", query, url=url, token=token, tenant=tenant)
        _show(document, as_json=as_json)

    if kind.read is not None:

        @group.command("show", help=f"Show {_named(kind)}.")
        def show(
            object_id: Annotated[str, typer.Argument(metavar="ID")],
            url: URL = None,
            token: TOKEN = None,
            tenant: TENANT = DEFAULT_TENANT,
        ) -> None:
            path = f"{PREFIX}/{kind.name}/{quote(object_id, safe='')}"
            _show(_call("GET", path, None, url=url, token=token, tenant=tenant), as_json=True)

    if kind.create_body is not None:
        _add_adder(group, kind, kind.create_body)
    if kind.change_body is not None:
        _add_changer(group, kind, kind.change_body)
    if kind.delete is not None:
        _add_deleter(group, kind)
    for action in kind.actions:
        _add_action(group, kind, action)
    return group


def _add_adder(group: typer.Typer, kind: Kind, body: type[Body]) -> None:
    @group.command("add", help=f"Add {_named(kind)}. Members: {members_of(body)}.")
    def add(
        fields: FIELDS = None,
        body_file: BODY_FILE = None,
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
        *,
        only: ONLY = None,
    ) -> None:
        document = parse_fields(body, fields or [], body_file)
        path = f"{PREFIX}/{kind.name}"
        answer = _call("POST", path, document, url=url, token=token, tenant=tenant)
        _show(answer, as_json=True, only=only)


def _add_changer(group: typer.Typer, kind: Kind, body: type[Body]) -> None:
    @group.command("change", help=f"Change {_named(kind)}. Members: {members_of(body)}.")
    def change(
        object_id: Annotated[str, typer.Argument(metavar="ID")],
        fields: FIELDS = None,
        body_file: BODY_FILE = None,
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
    ) -> None:
        document = parse_fields(body, fields or [], body_file)
        path = f"{PREFIX}/{kind.name}/{quote(object_id, safe='')}"
        _show(_call("PATCH", path, document, url=url, token=token, tenant=tenant), as_json=True)


def _add_deleter(group: typer.Typer, kind: Kind) -> None:
    @group.command("delete", help=f"Delete {_named(kind)}.")
    def delete(
        object_id: Annotated[str, typer.Argument(metavar="ID")],
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
    ) -> None:
        path = f"{PREFIX}/{kind.name}/{quote(object_id, safe='')}"
        _call("DELETE", path, None, url=url, token=token, tenant=tenant)
        typer.echo("deleted")


def _add_action(group: typer.Typer, kind: Kind, action: Action) -> None:
    special = SPECIAL_ACTIONS.get((kind.name, action.name))
    if special is not None:
        special(group, _call, read_body, _show)
        return

    summary = action.summary
    if action.body is not None and action.body.model_fields:
        summary += f" Members: {members_of(action.body)}."
    if action.on_kind:
        _add_action_on_kind(group, kind, action, summary)
        return

    @group.command(action.name, help=summary)
    def act(
        object_id: Annotated[str, typer.Argument(metavar="ID")],
        fields: FIELDS = None,
        body_file: BODY_FILE = None,
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
    ) -> None:
        document = parse_fields(action.body, fields or [], body_file) if action.body else None
        path = f"{PREFIX}/{kind.name}/{quote(object_id, safe='')}/{action.name}"
        _show(_call("POST", path, document, url=url, token=token, tenant=tenant), as_json=True)


def _add_action_on_kind(group: typer.Typer, kind: Kind, action: Action, summary: str) -> None:
    @group.command(action.name, help=summary)
    def act(
        fields: FILE_OR_FIELDS = None,
        body_file: BODY_FILE = None,
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
    ) -> None:
        words = list(fields or [])
        if words and "=" not in words[0] and body_file is None:
            body_file = Path(words.pop(0))
            if not body_file.exists():
                known = members_of(action.body) if action.body else "none"
                fail(f"{str(body_file)!r} is neither NAME=VALUE nor a file; members are {known}")
        document = parse_fields(action.body, words, body_file) if action.body else None
        path = f"{PREFIX}/{kind.name}:{action.name}"
        _show(_call("POST", path, document, url=url, token=token, tenant=tenant), as_json=True)


def _add_risk(group: typer.Typer) -> None:
    @group.command("risk", help="Show a user's risk level with its reasons; --explain for all.")
    def risk(
        object_id: Annotated[
            str, typer.Argument(metavar="USER", help="usr_…, email:…, ext:… or iss_sub:iss|sub")
        ],
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
        *,
        explain: Annotated[bool, typer.Option("--explain", help="With all evidence.")] = False,
        only: ONLY = None,
    ) -> None:
        path = f"/v1/risk/users/{quote(object_id, safe='')}" + ("/explain" if explain else "")
        _show(
            _call("GET", path, None, url=url, token=token, tenant=tenant), as_json=True, only=only
        )


def _query(kind: Kind, where: Sequence[str]) -> dict[str, str]:
    query: dict[str, str] = {}
    for word in where:
        name, separator, value = word.partition("=")
        if not separator or name not in kind.filters:
            known = ", ".join(kind.filters) or "none"
            fail(f"--where {word!r} is not NAME=VALUE; filters are {known}")
        query[name] = value
    return query


def _call_list(
    path: str, query: dict[str, str], *, url: str | None, token: str | None, tenant: str
) -> Any:
    """Return a list whole, page by page, up to LIST_ITEMS_MAX items."""
    items: list[Any] = []
    page: dict[str, Any] = {}
    cursor: dict[str, str] = {}
    while len(items) < LIST_ITEMS_MAX:
        words = urlencode({**query, **cursor, "limit": PAGE_MAX})
        page = _call("GET", f"{path}?{words}", None, url=url, token=token, tenant=tenant)
        items += page["items"]
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    return {**page, "items": items}


def _call(  # noqa: PLR0913 - a part of the request each, most by name
    method: str,
    path: str,
    body: object,
    *,
    url: str | None,
    token: str | None,
    tenant: str,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    async def run() -> Any:
        async with _client(url=url, token=token, tenant=tenant) as client:
            return await client.request(method, path, body, timeout_s=timeout_s)

    try:
        reply = asyncio.run(run())
    except Unavailable as error:
        fail(f"{url}: {error.detail} {HOW_TO_REACH}" if url else error.detail)
    except SchemaMismatch as error:
        fail(str(error))
    if reply.status >= ERROR:
        problem = reply.document if isinstance(reply.document, dict) else {}
        lines = [f"{reply.status} {problem.get('detail', 'refused')}"]
        lines += [
            f"  {item.get('pointer') or item.get('parameter')}: {item['detail']}"
            for item in problem.get("errors", [])
        ]
        if url is not None and reply.status == UNAUTHORIZED:
            lines.append(HOW_TO_GET_IN)
        fail("\n".join(lines))
    return reply.document


@asynccontextmanager
async def _client(*, url: str | None, token: str | None, tenant: str) -> AsyncIterator[AdminClient]:
    if url is not None:
        if not token:
            fail(f"--url needs --token. {HOW_TO_GET_IN}")
        try:
            base = tenant_url(url, tenant)
        except ValueError as error:
            fail(f"--url and --tenant disagree: {error}")
        # Where the hub runs elsewhere there need be no other setting of it.
        extra_ca = os.environ.get(f"{SETTING_PREFIX}EXTRA_CA")
        remote = RemoteClient(base, token, extra_ca=extra_ca)
        try:
            yield remote
        finally:
            await remote.close()
        return
    settings = load_settings()
    configure_logs("error", process="cli")
    made_up = MadeUp()
    key = secret_key(settings, made_up)
    issuer = await prepare(settings, key, made_up)
    config = ProcessConfig(
        role="cli",
        index=0,
        node="cli",
        issuer=issuer,
        database_url=settings.database_url,
        core_socket=None,
        secret_key=key,
        dev_insecure=settings.dev_insecure,
        egress_allow=settings.egress_allow,
        extra_ca=str(settings.extra_ca) if settings.extra_ca else None,
        log_level="error",
        data_dir=str(settings.data_dir),
    )
    for line in made_up.lines:
        typer.echo(f"made up: {line}", err=True)
    async with open_node(config) as node:
        outbound = PinnedOutbound(config.egress_rules())
        try:
            yield LocalClient(make_trusted_app(node, outbound), tenant_id=tenant)
        finally:
            await outbound.close()


def _show(document: Any, *, as_json: bool, only: str | None = None) -> None:
    if only is not None:
        if only not in document:
            fail(f"the answer has no member {only!r}; it has {', '.join(document)}")
        sys.stdout.write(cell(document[only]) + "\n")
        return
    if as_json or "items" not in document:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
        return
    sys.stdout.write(table(document["items"]))
    if document["next_cursor"]:
        count = len(document["items"])
        typer.echo(f"these are the first {count}; the API has them all", err=True)
