"""The commands that the documents show exist, with the options, members and filters they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from hub.admin.commands import command_of, register
from hub.admin.kinds import Kind
from hub.admin.routes import ALL_KINDS
from hub.cli import app
from tests.docs.test_documents import DOCUMENTS, name_of

_FENCE = re.compile(r"^( *)```[\w-]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_INDENTED = re.compile(r"^    \S.*$", re.MULTILINE)
_COMMAND = re.compile(r"(?:^|[\s$(])signalhub (.*)", re.DOTALL)
#: where a command ends for a shell
_END = re.compile(r"^([|&;>)].*|2>.*)$")
#: these read their words themselves, and their own tests cover them
_OWN_WORDS = frozenset({"simulate", "conformance"})
KINDS = {command_of(kind): kind for kind in ALL_KINDS}


def tree() -> TyperGroup:
    """Return all commands."""
    whole = typer.Typer()
    register(whole)
    command, own = typer.main.get_command(whole), typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    assert isinstance(own, TyperGroup)
    command.commands = {**own.commands, **command.commands}
    return command


ALL_COMMANDS = tree()


def shown(text: str) -> list[str]:
    """Return every command of ours in a document's code, without what the shell does with it."""
    text = text.replace("\\\n", " ")
    places = [line for _, block in _FENCE.findall(text) for line in block.split("\n")]
    rest = _FENCE.sub("", text)
    places += [" ".join(code.split()) for code in _INLINE.findall(rest)]
    places += _INDENTED.findall(rest)
    return [found[1] for place in places if (found := _COMMAND.search(place))]


def words_of(command: str) -> list[str]:
    """Return a command's words as a shell makes them, up to where it ends."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        # A text that goes on in the next line: what is whole in this one counts.
        words = command.split("'", maxsplit=1)[0].split()
    end = next((at for at, word in enumerate(words) if _END.match(word)), len(words))
    return [word.rstrip(");") for word in words[:end]]


def faults_of(command: str) -> list[str]:
    """Return what is wrong with one command."""
    # `list|show` stands for both.
    alternatives = re.search(r"(?<=\s)[a-z-]+(?:\|[a-z-]+)+", command)
    if alternatives:
        head, tail = command[: alternatives.start()], command[alternatives.end() :]
        return [
            fault for one in alternatives[0].split("|") for fault in faults_of(head + one + tail)
        ]
    words = words_of(command)
    found: Any = ALL_COMMANDS
    path: list[str] = []
    while isinstance(found, TyperGroup) and words and not words[0].startswith("-"):
        path.append(words.pop(0))
        if path[-1].isupper() or "…" in path[-1]:
            return []
        known = found.commands.get(path[-1])
        if known is None:
            return [f"no such command: {' '.join(path)}"]
        found = known
    if not path or path[0] in _OWN_WORDS:
        return []
    options = {name for one in found.params for name in (*one.opts, *one.secondary_opts)}
    faults = [
        f"no such option: {word}"
        for word in words
        if word.startswith("--") and word.partition("=")[0] not in {*options, "--help"}
    ]
    kind = KINDS.get(path[0])
    if kind is not None and len(path) == 2:
        faults += _wrong_members(kind, path[1], words)
    return faults


def _wrong_members(kind: Kind, verb: str, words: list[str]) -> list[str]:
    bodies = {"add": kind.create_body, "change": kind.change_body}
    bodies |= {action.name: action.body for action in kind.actions}
    body = bodies.get(verb)
    members = set(kind.filters) if verb == "list" else set(body.model_fields) if body else set()
    names = [word.partition("=")[0] for word in words if re.match(r"[a-z_0-9]+=", word)]
    return [
        f"no such member of {kind.item} {verb}: {name}" for name in names if name not in members
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_commands_a_document_shows_exist(document: Path) -> None:
    wrong = {
        command: faults for command in shown(document.read_text()) if (faults := faults_of(command))
    }
    assert wrong == {}


def test_the_documents_show_many_commands() -> None:
    assert sum(len(shown(document.read_text())) for document in DOCUMENTS) > 100


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("stream lst", "no such command: stream lst"),
        ("delivery list --where stream_id=str_1", "no such member of delivery list: stream_id"),
        ("key list|prepair", "no such command: key prepair"),
        ("app add nam=wiki", "no such member of app add: nam"),
        ("user risk email:a@b.example --explian", "no such option: --explian"),
    ],
)
def test_a_wrong_command_is_found(command: str, fault: str) -> None:
    assert faults_of(command) == [fault]
