"""`signalhub policy preset`, `replay`, `sweeps`: beyond a body sent and an answer shown."""

# No deferred annotations here: the command line is read from them.
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hub.admin.kinds import PREFIX
from hub.replays import LIMIT_S
from hub.tenancy import DEFAULT_TENANT

URL = Annotated[str | None, typer.Option("--url", help="Issuer URL of a running hub.")]
TOKEN = Annotated[str | None, typer.Option("--token", help="Admin token, with --url.")]
TENANT = Annotated[str, typer.Option("--tenant", help="Tenant to work on.")]
JSON_OUT = Annotated[bool, typer.Option("--json", help="Print JSON.")]
#: (method, path, body, where) -> the answer; a file -> its JSON object; shows an answer
Call = Callable[..., Any]
Read = Callable[[Path], dict[str, Any]]
Show = Callable[..., None]
PATH: Final = f"{PREFIX}/policies"
#: what `policy show` prints and nobody sets
READ_ONLY: Final = frozenset({"version", "skipped", "warnings"})
#: the hub's own limit, and the way
REPLAY_TIMEOUT_S: Final = LIMIT_S + 30
#: what is printed of a replay: of policies asked about requests, and of entity risk
OF_REQUESTS: Final = ("contexts", "prompts", "denials", "logouts", "users")
OF_USERS: Final = ("changes", "logouts", "quarantines", "prompts", "alerts", "users")


def add_preset(group: typer.Typer, call: Call, _read: Read, show: Show) -> None:
    """Add `preset` to a command group."""

    @group.command("preset", help="Replace the rules by a preset, in monitor unless --enforce.")
    def preset(
        name: Annotated[str, typer.Argument(help="standard")] = "standard",
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
        *,
        enforce: Annotated[bool, typer.Option("--enforce", help="Act, not only log.")] = False,
    ) -> None:
        document = {"name": name, "mode": "enforce" if enforce else "monitor"}
        answer = call("POST", f"{PATH}:preset", document, url=url, token=token, tenant=tenant)
        show(answer, as_json=True)


def add_replay(group: typer.Typer, call: Call, read: Read, show: Show) -> None:
    """Add `replay` to a command group."""

    @group.command("replay", help="Tell what a policy would have done in the last days.")
    def replay(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy as JSON.")],
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
        *,
        days: Annotated[int, typer.Option(help="How far back.")] = 7,
        as_json: JSON_OUT = False,
    ) -> None:
        # As `policy show` prints it, with what nobody sets.
        policy = {name: value for name, value in read(file).items() if name not in READ_ONLY}
        answer = call(
            "POST",
            f"{PATH}:replay",
            {"policy": policy, "days": days},
            url=url,
            token=token,
            tenant=tenant,
            timeout_s=REPLAY_TIMEOUT_S,
        )
        if as_json:
            show(answer, as_json=True)
            return
        for line in told(answer):
            typer.echo(line)


def add_sweeps(group: typer.Typer, call: Call, _read: Read, show: Show) -> None:
    """Add `sweeps` to a command group."""

    @group.command("sweeps", help="Tell how far the judging again after the last edits came.")
    def sweeps(
        url: URL = None,
        token: TOKEN = None,
        tenant: TENANT = DEFAULT_TENANT,
        *,
        as_json: JSON_OUT = False,
    ) -> None:
        answer = call("POST", f"{PATH}:sweeps", None, url=url, token=token, tenant=tenant)
        if as_json:
            show(answer, as_json=True)
            return
        for line in told_sweeps(answer["items"]):
            typer.echo(line)


def told_sweeps(sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the last sweeps as lines for people."""
    if not sweeps:
        return ["none: no policy or zone was edited since the database was made"]
    row = ("{:<10}{:<9}" + "{:>8}" * 3 + "  {:<20}{}").format
    lines = [row("kind", "state", "looked", "acted", "would", "edited at", "cause")]
    for each in sweeps:
        counts = (each["looked"], each["acted"], each["would_have"])
        asked_at = str(each["requested_at"])[:19]
        lines.append(row(each["kind"], each["state"], *map(str, counts), asked_at, each["cause"]))
    if any(each["state"] == "running" for each in sweeps):
        lines.append("running: the hub takes the next page twice a second while it is served")
    return lines


def told(answer: Mapping[str, Any]) -> list[str]:
    """Return a report of `policies:replay` as lines for people."""
    of_users = "changes" in answer
    what = "changes" if of_users else "contexts"
    columns = OF_USERS if of_users else OF_REQUESTS
    row = ("{:<12}" + "{:>12}" * len(columns)).format
    total = [str(answer[name]) for name in columns]
    lines = [row("day", *columns)]
    lines += [row(day["day"], *(str(day[name]) for name in columns)) for day in answer["days"]]
    lines += [row("all", *total), ""]
    if not answer[what]:
        lines.append(
            f"nothing was recorded in {answer['since_days']} days:"
            + (" no user's level moved" if of_users else " no session asked and nobody signed in")
        )
    if of_users:
        lines.append(f"held by the guard for a person: {answer['held_by_guard']}")
    else:
        lines.append(f"prompts per user and day: {answer['prompts_per_user_day']}")
    lines += [f"{each[what]:>12}  {each['reason']}" for each in answer["top_reasons"]]
    lines += [f"warning: {warning}" for warning in answer["warnings"]]
    if answer["is_cut"]:
        lines.append(f"warning: one replay does not look at so many {what}: ask for fewer days")
    return lines


#: (kind, action) -> what adds its command
SPECIAL_ACTIONS: Final[
    Mapping[tuple[str, str], Callable[[typer.Typer, Call, Read, Show], None]]
] = {
    ("policies", "preset"): add_preset,
    ("policies", "replay"): add_replay,
    ("policies", "sweeps"): add_sweeps,
}
