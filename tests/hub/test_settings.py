"""Settings: where they come from, which win, and what is refused with which words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.settings import Settings, is_loopback
from risk.scoring.service import DEFAULT_SCORER, SCORERS

ROOT = Path(__file__).parents[2]
KEY = "k" * 40
PG = "postgresql://user:hush-hush@db.example/hub"


def load(*cases: dict[str, Any]) -> list[dict[str, Any]]:
    """Load the settings of each case in a process of its own environment."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.settings_cases"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("SIGNALHUB")},
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def env(**variables: str) -> dict[str, Any]:
    names = {f"SIGNALHUB_{name.upper()}": value for name, value in variables.items()}
    return {"environment": names}


def test_with_nothing_set_the_hub_is_a_development_one_on_loopback() -> None:
    (found,) = load({})

    assert (found["host"], found["port"], found["issuer"]) == ("127.0.0.1", 8423, None)
    assert found["database_url"] == "sqlite:///./signalhub.db"
    assert found["dev_insecure"] is True


def test_the_command_line_wins_over_the_environment_and_that_over_the_file() -> None:
    file = 'port = 1\nhost = "127.0.0.3"\nlog_level = "error"\n'
    (found,) = load(
        {**env(port="2", host="127.0.0.2"), "file": file, "given": {"port": 3, "workers": None}}
    )

    assert (found["port"], found["host"], found["log_level"]) == (3, "127.0.0.2", "error")
    assert found["workers"] == 1


def test_the_file_may_be_another_one(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text('node = "n1"\negress_allow = ["10.0.0.0/8", "idp.internal"]\n')
    (found,) = load(env(config=str(file)))

    assert found["node"] == "n1"
    assert found["egress_allow"] == str(("10.0.0.0/8", "idp.internal"))


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    (found,) = load(env(egress_allow="10.0.0.0/8, ,idp.internal"))

    assert found["egress_allow"] == str(("10.0.0.0/8", "idp.internal"))


def test_unknown_names_are_refused_wherever_they_stand() -> None:
    variable, lower, member = load(
        env(prot="1"), {"environment": {"signalhub_prot": "1"}}, {"file": "prot = 1\n"}
    )

    assert "unknown setting SIGNALHUB_PROT" in variable["error"]
    assert "SIGNALHUB_PORT" in variable["error"]
    assert "unknown setting signalhub_prot" in lower["error"]
    assert member["error"].startswith("SIGNALHUB_PROT:")


def test_variables_of_other_parts_are_known() -> None:
    (found,) = load(env(test_clock_file="/tmp/clock", test_pg_url="postgresql://x"))

    assert "error" not in found


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (env(port="x"), "SIGNALHUB_PORT:"),
        (env(port="70000"), "SIGNALHUB_PORT:"),
        (env(workers="0"), "SIGNALHUB_WORKERS:"),
        (env(role="core"), "SIGNALHUB_ROLE:"),
        (env(log_level="loud"), "SIGNALHUB_LOG_LEVEL:"),
        (env(dev_insecure="perhaps"), "SIGNALHUB_DEV_INSECURE:"),
        (env(issuer="http://hub.example"), "SIGNALHUB_ISSUER: must be https"),
        (env(issuer="https://hub.example/"), "SIGNALHUB_ISSUER: must have no path"),
        (env(issuer="https://hub.example/x"), "SIGNALHUB_ISSUER: must have no path"),
        (env(issuer="https://hub.example?x"), "SIGNALHUB_ISSUER: must have no path"),
        (env(issuer="https://u:p@hub.example"), "SIGNALHUB_ISSUER: must have no path"),
        (env(issuer="hub.example"), "SIGNALHUB_ISSUER: must be an https URL"),
        (env(issuer="ftp://hub.example"), "SIGNALHUB_ISSUER: must be an https URL"),
        (env(issuer="https://"), "SIGNALHUB_ISSUER: must be an https URL"),
        (env(host="0.0.0.0"), "SIGNALHUB_ISSUER: must be set"),
        (env(host="hub.example"), "SIGNALHUB_ISSUER: must be set"),
        (env(dev_insecure="false"), "SIGNALHUB_ISSUER: must be set"),
        (env(secret_key="short"), "SIGNALHUB_SECRET_KEY: at least 32"),
        (env(database_url=PG), "SIGNALHUB_SECRET_KEY: must be set"),
        ({"file": "port = "}, "signalhub.toml: not readable as TOML"),
        ({"file": "\xff"}, "signalhub.toml: not readable as TOML"),
        (env(config="/nowhere/hub.toml"), "SIGNALHUB_CONFIG: there is no file /nowhere/hub.toml"),
        (env(config="/"), "not readable as TOML"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(case: dict[str, Any], words: str) -> None:
    (found,) = load(case)

    assert words in found["error"]


def test_secrets_are_not_repeated_in_refusals() -> None:
    cases = load(
        env(secret_key="hush-hush"),
        env(database_url=PG, secret_key="hush-hush"),
        env(database_url=PG, port="x", admin_token="hush-hush"),
    )

    assert all("hush" not in found["error"] for found in cases)


def test_the_development_mode_comes_by_itself_only_with_nothing_configured() -> None:
    configured, asked, loopback = load(
        env(issuer="https://hub.example", host="0.0.0.0"),
        env(issuer="http://hub.example", dev_insecure="true", host="0.0.0.0"),
        env(issuer="https://hub.example"),
    )

    assert configured["dev_insecure"] is False
    assert asked["dev_insecure"] is True
    assert loopback["dev_insecure"] is False


def test_postgresql_with_a_key_is_taken() -> None:
    (found,) = load(env(database_url=PG, secret_key=KEY, issuer="https://hub.example"))

    assert found["secret_key"] == KEY


def test_an_unknown_scorer_is_refused_at_start_and_the_known_ones_are_named() -> None:
    (found,) = load(env(scorer="oracle"))

    assert "SIGNALHUB_SCORER" in found["error"]
    assert "rules" in found["error"]


def test_the_usual_scorer_is_one_that_is_known() -> None:
    assert Settings.model_fields["scorer"].default == DEFAULT_SCORER
    assert DEFAULT_SCORER in SCORERS


def test_a_command_does_not_load_what_only_the_processes_need() -> None:
    heavy = ("risk", "sqlalchemy", "starlette", "jwcrypto")
    code = f"import hub.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("hub.example", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback
