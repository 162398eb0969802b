"""The command line: real processes, on the database and against a served hub."""

from __future__ import annotations

import json
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.hub.commands import KEY, LIMIT_S, Served, Shell, new_database, served

IDENTIFIERS = 'identifiers=[{"format": "email", "email": "rosa@customer.example"}]'
PROVIDER = (
    "name=mdm",
    "issuer=https://mdm.vendor.example",
    "jwks_uri=https://mdm.vendor.example/jwks.json",
    "audiences=https://hub.example,https://other.example",
)


@pytest.mark.usefixtures("used_folder")
def test_objects_are_added_listed_shown_changed_and_deleted(shell: Shell) -> None:
    provider = shell.good("provider", "add", *PROVIDER, "level_cap=MEDIUM", "legacy_subject=true")
    app = shell.good("app", "add", "name=crm", "sensitivity=80", "subject_formats=email,iss_sub")
    client = shell.good("client", "add", "name=crm", "scopes=ssf.read", f"app_id={app['id']}")

    assert provider["audiences"] == ["https://hub.example", "https://other.example"]
    assert provider["legacy_subject"] is True
    assert provider["level_cap"] == "MEDIUM"
    assert (app["sensitivity"], app["subject_formats"]) == (80, ["email", "iss_sub"])
    assert client["token"].startswith("shc_")
    assert shell.good("app", "show", app["id"]) == app
    assert shell.good("app", "list", "--json")["items"] == [app]
    listed = shell.run("client", "list")
    assert client["id"] in listed.out
    assert client["token"] not in listed.out + listed.err
    changed = shell.good("app", "change", app["id"], "sensitivity=5", "issuer=null")
    assert (changed["sensitivity"], changed["name"]) == (5, "crm")
    assert shell.run("app", "delete", app["id"]).out == "deleted\n"
    gone = shell.run("app", "show", app["id"])
    assert (gone.code, gone.err) == (2, "signalhub: 404 No such app.\n")


@pytest.mark.usefixtures("used_folder")
def test_what_was_done_is_audited_as_cli(shell: Shell) -> None:
    app = shell.good("app", "add", "name=crm")
    entries = shell.good("audit-entry", "list", "--json")["items"]

    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("cli", "app.create"),
        ("bootstrap", "client.create"),
    ]
    assert entries[0]["ref"] == app["id"]


@pytest.mark.usefixtures("used_folder")
def test_the_preset_is_applied_to_watch_or_to_act(shell: Shell) -> None:
    watching = shell.good("policy", "preset")
    acting = shell.good("policy", "preset", "standard", "--enforce")

    assert (watching["mode"], acting["mode"]) == ("monitor", "enforce")
    unknown = shell.run("policy", "preset", "none")
    assert unknown.code == 2
    assert "standard" in unknown.err


@pytest.mark.usefixtures("used_folder")
def test_a_policy_in_a_file_is_applied_and_shown(shell: Shell) -> None:
    file = shell.folder / "strict.json"
    rule = {"name": "new", "priority": 1, "when": {"level": "HIGH"}, "then": {"decision": "DENY"}}
    file.write_text(json.dumps({"name": "strict", "mode": "enforce", "rules": [rule]}))
    made = shell.good("policy", "apply", str(file))

    assert shell.good("policy", "apply", str(file)) == made
    assert shell.good("policy", "show", made["id"]) == made
    assert made["id"] in shell.run("policy", "list").out
    file.write_text(json.dumps({"name": "strict", "rules": [{**rule, "then": {}}]}))
    refused = shell.run("policy", "apply", str(file))
    assert refused.code == 2
    assert "/rules/0/then/decision" in refused.err
    assert shell.run("policy", "apply", str(file) + ".none").code == 2


@pytest.mark.usefixtures("used_folder")
def test_a_policy_in_a_file_is_tried_before_it_is_applied(shell: Shell) -> None:
    file = shell.folder / "strict.json"
    file.write_text(json.dumps({"type": "global_session", "rules": []}))
    told = shell.run("policy", "replay", str(file), "--days", "3")

    assert told.code == 0, told.err
    assert told.out.splitlines()[0].split() == [
        "day",
        "contexts",
        "prompts",
        "denials",
        "logouts",
        "users",
    ]
    answer = shell.good("policy", "replay", str(file), "--days", "3", "--json")
    assert (answer["since_days"], answer["contexts"], answer["is_cut"]) == (3, 0, False)
    assert shell.run("policy", "replay", str(file), "--days", "1000").code == 2


@pytest.mark.usefixtures("used_folder")
def test_users_are_shown_by_any_of_their_names(shell: Shell) -> None:
    sub = {"format": "iss_sub", "iss": "https://login.example", "sub": "a/b"}
    user = shell.good("user", "add", f"identifiers={json.dumps([sub])}", "external_id=u 1")

    for name in (user["id"], "ext:u 1", "iss_sub:https://login.example|a/b"):
        assert shell.good("user", "show", name) == user


@pytest.mark.usefixtures("used_folder")
def test_a_body_may_come_from_a_file(shell: Shell, tmp_path: Path) -> None:
    body = tmp_path / "app.json"
    body.write_text('{"name": "crm", "sensitivity": 7}')
    app = shell.good("app", "add", "--body", str(body), "name=wiki")

    assert (app["name"], app["sensitivity"]) == ("wiki", 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("provider", "add", "name=x"), ["400", "/issuer"]),
        (("provider", "add", "nome=x"), ["'nome' is no member; members are", "issuer (needed)"]),
        (("app", "add", "crm"), ["'crm' is not NAME=VALUE"]),
        (("event", "emit", "str_1"), ["'str_1' is neither NAME=VALUE nor a file; members are str"]),
        (("app", "add", "name=x", "logout={"), ["logout: not JSON"]),
        (("app", "add", "name=x", "sensitivity=much"), ["400", "/sensitivity"]),
        (("app", "add", "name=x", "kind=spaceship"), ["400", "/kind"]),
        (("app", "add", "--body", "nowhere.json"), ["nowhere.json: No such file"]),
        (("app", "show", "app_none"), ["404 No such app."]),
        (("app", "list", "--tenant", "nobody"), ["404"]),
        (("user", "show", "nonsense"), ["400", "usr_"]),
        (("containment", "list", "--where", "state=x"), ["400", "open, held, restoring, closed"]),
        (("containment", "list", "--where", "state"), ["not NAME=VALUE", "state, user"]),
        (("app", "list", "--where", "name=x"), ["filters are none"]),
        (("task", "retry", "tsk_none"), ["404"]),
        (("client", "add", "name=x", "scopes=all"), ["400", "admin.read"]),
        (("app", "list", "--url", "http://127.0.0.1:1", "--token", "x"), ["signalhub: "]),
        (("migrate", "--to", "nowhere"), ["nowhere"]),
        (("simulate",), ["vendor|idp|app"]),
    ],
)
@pytest.mark.usefixtures("used_folder")
def test_a_mistake_ends_with_code_2_and_a_line_that_helps(
    shell: Shell, arguments: tuple[str, ...], words: list[str]
) -> None:
    done = shell.run(*arguments)

    assert done.code == 2, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "Warning" not in done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SIGNALHUB_PRT": "1"}, "unknown setting SIGNALHUB_PRT"),
        (
            {"SIGNALHUB_DATABASE_URL": "mysql://x", "SIGNALHUB_SECRET_KEY": KEY},
            "SIGNALHUB_DATABASE_URL",
        ),
        (
            {"SIGNALHUB_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"},
            "SIGNALHUB_SECRET_KEY: must be set",
        ),
        (
            {
                "SIGNALHUB_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x",
                "SIGNALHUB_SECRET_KEY": KEY,
            },
            "the database is not reachable",
        ),
        ({"SIGNALHUB_HOST": "0.0.0.0"}, "SIGNALHUB_ISSUER: must be set"),
    ],
)
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("migrate",), ("app", "list")])
def test_wrong_settings_end_every_command_with_code_2(
    shell: Shell, variables: dict[str, str], words: str, command: tuple[str, ...]
) -> None:
    done = replace(shell, variables=variables).run(*command)

    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert "hush" not in done.err


def test_every_command_says_what_it_is_for(shell: Shell) -> None:
    everything = shell.run("--help").out

    for name in ("serve", "migrate", "demo", "simulate", "provider", "app", "client", "policy"):
        assert f" {name} " in everything
    for command in (
        ("serve",),
        ("migrate",),
        ("demo",),
        ("provider",),
        ("provider", "add"),
        ("stream", "list"),
        ("containment", "approve"),
        ("containment", "release"),
    ):
        done = shell.run(*command, "--help")
        assert done.code == 0, done.err
        assert "Usage: " in done.out
    assert "issuer (needed)" in shell.run("provider", "add", "--help").out
    emit = shell.run("event", "emit", "--help").out
    assert "stream_id (needed)" in emit
    assert "[ID]" not in emit
    assert "Add an app." in shell.run("app", "--help").out
    assert "Add a user." in shell.run("user", "--help").out
    assert not list(shell.folder.iterdir())


@pytest.mark.usefixtures("used_folder")
def test_every_kind_has_one_group_of_commands(shell: Shell) -> None:
    from hub.admin.routes import KINDS  # noqa: PLC0415

    names = [kind.item for kind in KINDS]
    assert len(set(names)) == len(names)
    for name in ("unmatched", "signal", "delivery", "dead-letter", "key", "service-account"):
        assert shell.run(name, "list").out == "none\n" or name == "key"


@pytest.mark.usefixtures("used_folder")
def test_a_long_list_is_shown_whole(shell: Shell) -> None:
    shell.good("user", "add", IDENTIFIERS)
    connection = sqlite3.connect(shell.folder / "signalhub.db")
    names = [row[1] for row in connection.execute("PRAGMA table_info(entities)")]
    rows = connection.execute("SELECT * FROM entities").fetchall()
    places = {name: place for place, name in enumerate(names)}
    for number in range(120):
        row = list(rows[0])
        row[places["entity_id"]], row[places["external_id"]] = f"usr_{number}", None
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO entities VALUES ({marks})", row)  # noqa: S608 - marks only
    connection.commit()
    connection.close()

    assert len(shell.good("user", "list", "--json")["items"]) == 121


def test_migrate_is_safe_to_repeat(shell: Shell) -> None:
    first, again = shell.run("migrate"), shell.run("migrate")

    assert first.out == again.out
    assert first.out.startswith("The database is at revision ")


def test_postgresql_is_migrated_by_command(shell: Shell, postgresql_server: str) -> None:
    with new_database(postgresql_server) as url:
        variables = {"SIGNALHUB_DATABASE_URL": url, "SIGNALHUB_SECRET_KEY": KEY}
        shell = replace(shell, variables=variables)
        before = shell.run("app", "list")
        serving = shell.run("serve", "--port", "0")
        migrated = shell.run("migrate")
        app = shell.good("app", "add", "name=crm")

        assert (before.code, serving.code, migrated.code) == (2, 2, 0)
        assert "run 'signalhub migrate'" in before.err
        assert "run 'signalhub migrate'" in serving.err
        assert shell.good("app", "list", "--json")["items"] == [app]
        assert not list(shell.folder.iterdir())


def test_the_command_as_it_is_installed(shell: Shell) -> None:
    listed = shell.run_afresh("app", "list")
    mistaken = shell.run_afresh("app", "show", "app_none")

    assert shell.run_afresh("version").out.strip()[0].isdigit()
    assert (listed.code, listed.out) == (0, "none\n")
    assert "made up: secret key" in listed.err
    assert (mistaken.code, mistaken.err) == (2, "signalhub: 404 No such app.\n")


# Against a served hub.


def test_a_served_hub_is_administered_from_afar(hub_process: Served, shell: Shell) -> None:
    far = ("--url", hub_process.issuer, "--token", hub_process.token)
    app = shell.good("app", "add", "name=far", *far)

    assert shell.good("app", "show", app["id"], *far) == app
    assert app in shell.good("app", "list", "--json", *far)["items"]
    assert shell.good("policy", "preset", "--enforce", *far)["mode"] == "enforce"
    assert shell.run("app", "delete", app["id"], *far).out == "deleted\n"
    assert not list(shell.folder.iterdir()), "nothing is made where the command runs"


def test_the_command_line_beside_a_hub_gives_out_its_addresses(hub_process: Served) -> None:
    """Also on another port than its own settings say; what they say themselves counts more."""
    shell = hub_process.shell
    url = shell.run("provider", "add", *PROVIDER, "--only", "events_url").out
    named = {"SIGNALHUB_ISSUER": "http://127.0.0.1:1", "SIGNALHUB_DEV_INSECURE": "true"}
    other = replace(shell, variables={**shell.variables, **named})
    provider = shell.good("provider", "list", "--json")["items"][-1]

    assert url.startswith(f"{hub_process.issuer}/receivers/")
    shown = other.good("provider", "show", provider["id"])
    assert shown["events_url"].startswith("http://127.0.0.1:1/receivers/")


def test_a_second_hub_on_the_same_file_is_refused(hub_process: Served, tmp_path: Path) -> None:
    shell = hub_process.shell
    same = tmp_path / "other name.db"
    same.symlink_to(shell.folder / "signalhub.db")
    named = {**shell.variables, "SIGNALHUB_DATABASE_URL": f"sqlite:///{same}"}
    for each in (shell, replace(shell, variables=named)):
        second = each.run("serve", "--port", "0")

        assert second.code == 2
        assert "is served already by process" in second.err
        assert second.out == ""
    ready = httpx2.get(f"{hub_process.issuer}/readyz", timeout=LIMIT_S)
    assert ready.status_code == 200


def test_a_first_start_that_finds_its_port_taken_makes_no_admin_up(
    hub_process: Served, shell: Shell
) -> None:
    """Its token would be shown once, and lost."""
    taken = shell.run("serve", "--port", hub_process.issuer.rpartition(":")[2])

    assert taken.code == 2
    assert "cannot listen" in taken.err
    assert "made up: admin token" in shell.run("app", "list").err


def test_what_the_command_line_adds_the_served_hub_sees(hub_process: Served) -> None:
    user = hub_process.shell.good("user", "add", IDENTIFIERS)
    far = ("--url", hub_process.issuer, "--token", hub_process.token)

    assert hub_process.shell.good("user", "show", user["id"], *far) == user


@pytest.mark.parametrize("token", ["", "shc_wrong", "two words", "é", "a\nb"])
def test_a_wrong_token_is_told(hub_process: Served, shell: Shell, token: str) -> None:
    far = ("--url", hub_process.issuer, "--token", token)
    done = shell.run("app", "list", *far)

    assert done.code == 2
    assert "Traceback" not in done.err


def test_an_address_that_is_no_hub_is_told(hub_process: Served, shell: Shell) -> None:
    far = ("--url", f"{hub_process.issuer}/nowhere", "--token", hub_process.token)
    done = shell.run("app", "list", *far)

    assert done.code == 2
    assert "404" in done.err


def test_the_first_start_is_a_working_hub(hub_process: Served) -> None:
    answer = httpx2.get(f"{hub_process.issuer}/.well-known/ssf-configuration", timeout=LIMIT_S)
    ready = httpx2.get(f"{hub_process.issuer}/readyz", timeout=LIMIT_S)
    secret = hub_process.shell.folder / "signalhub-data" / "secret.key"

    assert answer.json()["issuer"] == hub_process.issuer
    assert ready.status_code == 200
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "server" not in answer.headers


def test_sweeps_and_replays_of_a_running_hub_from_afar_and_on_its_database(
    hub_process: Served,
) -> None:
    """What is shown can be tried as it is, and the tenant counts from afar as well."""
    shell = hub_process.shell
    far = ("--url", hub_process.issuer, "--token", hub_process.token)
    shell.good("zone", "add", "name=home", "type=IP", 'gateways=[{"value": "192.0.2.1"}]', *far)
    file = shell.folder / "shown.json"
    for place in (far, ()):
        told = shell.run("policy", "sweeps", *place)
        assert told.code == 0, told.err
        assert told.out.splitlines()[0].split()[:2] == ["kind", "state"]
        assert "zone:zon_" in told.out
        items = shell.good("policy", "sweeps", "--json", *place)["items"]
        assert [each["kind"] for each in items if each["cause"].startswith("zone:")] == ["sessions"]
        for name in ("global-session", "session-protection", "entity-risk"):
            file.write_text(json.dumps(shell.good("policy", "show", name, *place)))
            tried = shell.run("policy", "replay", str(file), *place)
            assert tried.code == 0, tried.err
            assert tried.out.splitlines()[0].split()[0] == "day"
    elsewhere = shell.run("policy", "sweeps", *far, "--tenant", "nobody")
    assert (elsewhere.code, elsewhere.out) == (2, "")
    assert "404" in elsewhere.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "http://127.0.0.1:1"), ["--url needs --token", "signalhub client add"]),
        (("--url", "http://127.0.0.1:1", "--token", "x"), ["Is the hub running there"]),
        (("--url", "http://h/t/a", "--token", "x", "--tenant", "b"), ["disagree", "tenant a"]),
        (("surprise",), ["surprise"]),
    ],
)
def test_sweeps_that_cannot_be_told_say_what_to_do(
    shell: Shell, arguments: tuple[str, ...], words: list[str]
) -> None:
    told = shell.run("policy", "sweeps", *arguments)
    assert (told.code, told.out) == (2, "")
    assert [word for word in words if word not in told.err] == []


def test_a_token_that_is_not_good_there_says_how_to_get_one(hub_process: Served) -> None:
    far = ("--url", hub_process.issuer, "--token", "wrong")
    told = hub_process.shell.run("policy", "sweeps", *far)
    assert told.code == 2
    assert "signalhub client add" in told.err


def test_a_worker_signs_as_the_hub_that_people_reach(postgresql_hub_process: Served) -> None:
    """It signed as the address of its own settings, where nobody listens."""
    with served(postgresql_hub_process.shell, "--role", "worker") as worker:
        assert worker.issuer == postgresql_hub_process.issuer
