"""The command line of the suite: `signalhub conformance transmitter|receiver …`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from conformance.suite.checks import Outcome, Result
from conformance.suite.http import Trust
from conformance.suite.report import Report, render_json, render_junit, render_table
from conformance.suite.transmitter.options import (
    Credentials,
    Delivery,
    Limits,
    Options,
    Profile,
    PushPlace,
    Trigger,
)

#: nothing could be judged, because the command was used wrongly
MISUSED: Final = 2
USAGE: Final = """\
signalhub conformance transmitter ISSUER …   test a transmitter: everything a receiver asks of it
signalhub conformance receiver PUSH_URL …    test a receiver: this command plays the transmitter

Each says more with --help. docs/conformance-suite.md explains how to set your side up.
"""
TRANSMITTER_EXAMPLES: Final = """\
examples:
  with a static token, push and poll, our push receiver on this machine:
    signalhub conformance transmitter https://tx.example --token "$TOKEN" \\
        --push-bind 0.0.0.0:9443 --push-url https://me.example:9443 \\
        --push-cert cert.pem --push-key key.pem
  with client credentials, found by discovery, poll only, results for a CI server:
    signalhub conformance transmitter https://tx.example/t/acme \\
        --client-id cli_1 --client-secret "$SECRET" --delivery poll --junit out.xml
  the CAEP interoperability profile of a Signalhub, events emitted over its admin API:
    signalhub conformance transmitter https://hub.example --token "$TOKEN" \\
        --profile caep-interop --trigger-url https://hub.example/admin/v1/events:emit \\
        --trigger-header "Authorization: Bearer $ADMIN_TOKEN"
  secrets in a file, which the list of processes does not show; one argument per line:
    signalhub conformance transmitter https://tx.example @secrets.txt
  some checks only:
    signalhub conformance transmitter https://tx.example --token "$TOKEN" --only CT-19,scopes

exit codes: 0 conformant, 1 a binding rule is broken, 2 the command was used wrongly
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code. Raises SystemExit for wrong arguments."""
    from conformance.suite.receiver.command import main as receiver  # noqa: PLC0415

    roles = {"transmitter": _transmitter, "receiver": receiver}
    if not argv or argv[0] not in roles:
        asked = bool(argv) and argv[0] in {"-h", "--help"}
        (sys.stdout if asked else sys.stderr).write(USAGE)
        return 0 if asked else MISUSED
    try:
        return roles[argv[0]](argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return MISUSED


def _transmitter(argv: Sequence[str]) -> int:
    from conformance.suite.transmitter.run import names_of_checks, run_transmitter  # noqa: PLC0415

    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.list:
        sys.stdout.writelines(f"{name}\n" for name in names_of_checks())
        return 0
    options = _options(parser, arguments)
    try:
        results = asyncio.run(run_transmitter(options, tell=tell))
    except OSError as problem:
        _misused(
            parser, f"cannot listen or read a file: {problem}; see --push-bind, --push-cert, --ca"
        )
    return finish(
        Report(
            role="transmitter",
            target=options.issuer,
            strict=arguments.strict,
            results=tuple(results),
        ),
        arguments,
    )


def tell(result: Result) -> None:
    """Say on standard error that a check is done."""
    sys.stderr.write(f"{result.outcome:<5} {result.name} ({result.variant})\n")
    sys.stderr.flush()


def finish(report: Report, arguments: argparse.Namespace) -> int:
    """Print the table, write the files, return the exit code."""
    sys.stdout.write(render_table(report))
    for file, render in ((arguments.json, render_json), (arguments.junit, render_junit)):
        if file is not None:
            file.write_text(render(report))
    if all(result.outcome is Outcome.SKIP for result in report.results):
        sys.stderr.write("nothing was judged: see the reasons above\n")
    return 1 if report.failed else 0


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both roles have: where results go, and how strict to be."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--strict", action="store_true", help="a warning is a failure too")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="trust this authority as well")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="signalhub conformance transmitter",
        description="Test an SSF transmitter over its public protocol, as a receiver sees it.",
        epilog=TRANSMITTER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    parser.add_argument("issuer", metavar="ISSUER", nargs="?", help="its issuer URL, with any path")
    parser.add_argument(
        "--metadata-url", help="where its metadata lies, if not at the standard place"
    )
    parser.add_argument("--token", help="an access token with ssf.read and ssf.manage")
    parser.add_argument("--client-id", help="get tokens by client_credentials")
    parser.add_argument("--client-secret", help="with --client-id; sent as client_secret_basic")
    parser.add_argument(
        "--client-key", type=Path, metavar="FILE", help="a private JWK instead: private_key_jwt"
    )
    parser.add_argument("--token-endpoint", help="where, if it cannot be discovered")
    parser.add_argument("--scope", default="ssf.read ssf.manage", help="default: %(default)s")
    parser.add_argument("--stranger-token", help="a token of another receiver, to test separation")
    parser.add_argument("--delivery", choices=("both", "push", "poll"), default="both")
    parser.add_argument(
        "--profile", choices=[one.value for one in Profile], default=Profile.SSF.value
    )
    parser.add_argument("--push-bind", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument(
        "--push-url", help="how the transmitter reaches that address, if differently"
    )
    parser.add_argument("--push-cert", type=Path, metavar="FILE", help="TLS of our push receiver")
    parser.add_argument("--push-key", type=Path, metavar="FILE")
    parser.add_argument("--trigger-url", help="POST here makes an event happen (JSON order)")
    parser.add_argument("--trigger-header", action="append", default=[], metavar="'NAME: VALUE'")
    parser.add_argument("--trigger-command", help="the same as a command; the order is its stdin")
    parser.add_argument("--only", default="", metavar="LIST", help="checks or requirement ids")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    limits = Limits()
    for name, told in (
        ("request_s", "for one answer"),
        ("event_s", "for an event that must come"),
        ("quiet_s", "for one that must not"),
        ("long_poll_s", "for the end of an empty long poll; 0 leaves that out"),
        ("check_s", "for one check"),
    ):
        flag = "--" + name.replace("_", "-")
        default = getattr(limits, name)
        parser.add_argument(
            flag, type=float, default=default, metavar="S", help=f"{told}; default {default:g}"
        )
    add_report_arguments(parser)
    return parser


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    if given.issuer is None:
        _misused(parser, "name the ISSUER of the transmitter, such as https://tx.example")
    if not given.issuer.startswith(("https://", "http://")):
        _misused(parser, f"{given.issuer!r} is no URL; it begins with https://")
    if (given.token is None) == (given.client_id is None):
        _misused(parser, "give either --token, or --client-id with --client-secret or --client-key")
    if given.client_key is not None and not given.client_key.is_file():
        _misused(parser, f"--client-key: there is no file {given.client_key}")
    if (given.push_cert is None) != (given.push_key is None):
        _misused(parser, "--push-cert and --push-key belong together")
    return Options(
        issuer=given.issuer,
        metadata_url=given.metadata_url,
        credentials=Credentials(
            token=given.token,
            client_id=given.client_id,
            client_secret=given.client_secret,
            client_key=given.client_key,
            token_endpoint=given.token_endpoint,
            scope=given.scope,
        ),
        stranger_token=given.stranger_token,
        trust=Trust(ca=given.ca, insecure=given.insecure),
        deliveries=tuple(one for one in Delivery if given.delivery in {"both", one.value}),
        profile=Profile(given.profile),
        push=_place(parser, given),
        trigger=Trigger(
            url=given.trigger_url,
            headers=tuple(_header(parser, text) for text in given.trigger_header),
            command=given.trigger_command,
        ),
        limits=Limits(
            request_s=given.request_s,
            event_s=given.event_s,
            quiet_s=given.quiet_s,
            long_poll_s=given.long_poll_s,
            check_s=given.check_s,
        ),
        only=frozenset(name.strip() for name in given.only.split(",") if name.strip()),
    )


def _place(parser: argparse.ArgumentParser, given: argparse.Namespace) -> PushPlace:
    host, _, port = given.push_bind.rpartition(":")
    if not host or not port.isdigit():
        _misused(parser, f"--push-bind is HOST:PORT, not {given.push_bind!r}")
    return PushPlace(
        host=host,
        port=int(port),
        public_url=given.push_url,
        certificate=given.push_cert,
        key=given.push_key,
    )


def _header(parser: argparse.ArgumentParser, text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        _misused(parser, f"--trigger-header is 'NAME: VALUE', not {text!r}")
    return name.strip(), value.strip()


def _misused(parser: argparse.ArgumentParser, text: str) -> NoReturn:
    parser.exit(MISUSED, f"signalhub conformance: {text}\n`--help` shows examples.\n")
