"""The command line of the receiver's half: `signalhub conformance receiver …`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from conformance.suite.checks import Result
from conformance.suite.command import add_report_arguments, finish, tell
from conformance.suite.http import Trust
from conformance.suite.receiver.party import Options
from conformance.suite.receiver.server import PATH, StageServer
from conformance.suite.report import Report

MISUSED: Final = 2
SET_UP_BYTES_MAX: Final = 64 * 1024
EXAMPLES: Final = """\
The command plays an SSF transmitter: it serves metadata, keys, tokens and streams, and says where
on the first line of its output, as JSON. The receiver under test is set up for that transmitter.

examples:
  a push endpoint, set up before for this issuer and its jwks_uri, at a fixed address:
    signalhub conformance receiver https://rx.example/events --audience rx \\
        --authorization "Bearer abc" --bind 0.0.0.0:9443 --public-url https://me.example:9443 \\
        --cert cert.pem --key key.pem
  the same, set up while the command waits; then paste one line of JSON:
    signalhub conformance receiver - --audience rx
    {"push_url": "https://rx.example/events", "authorization": "Bearer abc"}
  the whole stream client (create, read, update, status, verify, delete), step by step:
    signalhub conformance receiver --client --audience rx
  the same with a program of yours that makes each step, named as its argument:
    signalhub conformance receiver --client --audience rx --step-command ./step.sh

steps: create read update replace status read-status verify delete
exit codes: 0 conformant, 1 a binding rule is broken, 2 the command was used wrongly
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code. Raises SystemExit for wrong arguments."""
    from conformance.suite.receiver.run import CHECKS, run_receiver  # noqa: PLC0415

    parser = _parser()
    add_report_arguments(parser)
    given = parser.parse_args(argv)
    if given.list:
        sys.stdout.writelines(f"{one.name}\n" for one in CHECKS)
        return 0
    options = _options(parser, given)

    async def ready(server: StageServer) -> Options:
        sys.stdout.write(json.dumps(_introduction(server)) + "\n")
        sys.stdout.flush()
        return await _set_up(options)

    try:
        results: list[Result] = asyncio.run(run_receiver(options, ready=ready, tell=tell))
    except OSError as problem:
        _misused(parser, f"cannot listen or read a file: {problem}; see --bind, --cert, --ca")
    except ValueError as problem:
        _misused(parser, str(problem))
    target = given.push_url or "client"
    report = Report(role="receiver", target=target, strict=given.strict, results=tuple(results))
    return finish(report, given)


def _introduction(server: StageServer) -> dict[str, str]:
    stage = server.stage
    return {
        "issuer": stage.signer.issuer,
        "metadata_url": server.base_url + "/.well-known/ssf-configuration" + PATH,
        "jwks_uri": f"{server.issuer}/jwks",
        "audience": stage.signer.audience,
        "token": stage.token,
        "client_id": stage.client_id,
        "client_secret": stage.secret,
        "token_endpoint": f"{server.issuer}/token",
    }


async def _set_up(options: Options) -> Options:
    """Wait for the line that tells where to push to, when it was asked for. Raises ValueError."""
    if options.push_url != "-":
        return options
    sys.stderr.write('Set the receiver up, then paste {"push_url": …, "authorization": …}\n')
    line = await asyncio.to_thread(sys.stdin.readline, SET_UP_BYTES_MAX)
    try:
        told = json.loads(line)
        url, authorization = told["push_url"], told.get("authorization")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("standard input has no line of JSON with push_url") from None
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError(f"push_url {url!r} is no URL")
    if authorization is not None and not isinstance(authorization, str):
        raise ValueError("authorization is no string")
    return replace(options, push_url=url, authorization=authorization or options.authorization)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="signalhub conformance receiver",
        description="Test an SSF receiver: this command plays the transmitter.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    parser.add_argument("push_url", metavar="PUSH_URL", nargs="?", help="its push endpoint, or -")
    parser.add_argument("--client", action="store_true", help="test its stream client instead")
    parser.add_argument("--audience", help="the `aud` it expects in SETs")
    parser.add_argument("--authorization", help="the whole Authorization value it expects")
    parser.add_argument("--issuer", help="the `iss` it expects, if not the address we serve at")
    parser.add_argument("--bind", default="127.0.0.1:0", metavar="HOST:PORT", help="where we serve")
    parser.add_argument("--public-url", help="how the receiver reaches us, if differently")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="our TLS certificate")
    parser.add_argument("--key", type=Path, metavar="FILE", help="and its key")
    parser.add_argument("--profile", choices=("ssf", "caep-interop"), default="ssf")
    parser.add_argument("--step-command", help="makes one step of --client; its name is appended")
    parser.add_argument("--only", default="", metavar="LIST", help="checks or requirement ids")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    for flag, default, told in (
        ("--hold-s", 10.0, "how long a waiting poll is held"),
        ("--step-s", 60.0, "for one step, and for an acknowledgement"),
        ("--request-s", 15.0, "for one answer"),
        ("--check-s", 300.0, "for one check"),
    ):
        parser.add_argument(
            flag, type=float, default=default, metavar="S", help=f"{told}; default {default:g}"
        )
    return parser


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    if (given.push_url is None) == (not given.client):
        _misused(parser, "name the PUSH_URL of the receiver, or - to tell it later, or --client")
    if given.push_url not in {None, "-"} and not given.push_url.startswith(("https://", "http://")):
        _misused(parser, f"{given.push_url!r} is no URL; it begins with https://")
    if not given.audience:
        _misused(parser, "name the --audience that the receiver expects")
    if (given.cert is None) != (given.key is None):
        _misused(parser, "--cert and --key belong together")
    host, _, port = given.bind.rpartition(":")
    if not host or not port.isdigit():
        _misused(parser, f"--bind is HOST:PORT, not {given.bind!r}")
    return Options(
        push_url=given.push_url,
        audience=given.audience,
        authorization=given.authorization,
        issuer=given.issuer,
        host=host,
        port=int(port),
        public_url=given.public_url.rstrip("/") if given.public_url else None,
        certificate=given.cert,
        key=given.key,
        trust=Trust(ca=given.ca, insecure=given.insecure),
        step_command=given.step_command,
        interop=given.profile == "caep-interop",
        hold_s=given.hold_s,
        step_s=given.step_s,
        request_s=given.request_s,
        check_s=given.check_s,
        only=frozenset(name.strip() for name in given.only.split(",") if name.strip()),
    )


def _misused(parser: argparse.ArgumentParser, text: str) -> NoReturn:
    parser.exit(MISUSED, f"signalhub conformance: {text}\n`--help` shows examples.\n")
