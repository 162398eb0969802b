"""Running the checks of a receiver: its push endpoint alone, or its whole stream client."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from conformance.suite.checks import Check, Result, run_check
from conformance.suite.http import Asker, AskError
from conformance.suite.receiver import direct, modules
from conformance.suite.receiver.party import Options, Receiver
from conformance.suite.receiver.server import StageServer
from conformance.suite.receiver.sets import Signer
from conformance.suite.receiver.stage import Stage

CHECKS: Final[tuple[Check[Receiver], ...]] = (*direct.checks.all, *modules.checks.all)
TROUBLES: Final = (AskError, OSError, ssl.SSLError)
CLIENT_ID: Final = "receiver-under-test"


async def run_receiver(
    options: Options,
    *,
    ready: Callable[[StageServer], Awaitable[Options]],
    tell: Callable[[Result], None],
) -> list[Result]:
    """Serve our transmitter, wait until the receiver is set up for it, run all checks that fit.

    ready: is told where we serve, and returns the options with what it learned meanwhile.
    Raises OSError when the address cannot be had.
    """
    server = StageServer(
        options.host,
        options.port,
        public_url=options.public_url,
        tls=_server_tls(options),
        hold_s=options.hold_s,
    )
    results: list[Result] = []
    asker = Asker(options.trust, request_s=options.request_s)
    try:
        await server.start()
        signer = Signer(issuer=options.issuer or server.issuer, audience=options.audience)
        server.published = [signer.rs256.public_jwk, signer.es256.public_jwk]
        server.stage = Stage(
            signer,
            token=secrets.token_urlsafe(24),
            client_id=CLIENT_ID,
            secret=secrets.token_urlsafe(24),
        )
        options = await ready(server)
        receiver = Receiver(options, asker, server, signer)
        for check in _plan(options):
            results.append(
                await run_check(
                    check,
                    receiver,
                    variant="direct" if options.push_url else "client",
                    limit_s=options.check_s,
                    troubles=TROUBLES,
                )
            )
            # Between modules everything is answered 204 (CRC-15).
            server.stage.is_open = False
            tell(results[-1])
    finally:
        await asker.close()
        await server.stop()
    return results


def _plan(options: Options) -> list[Check[Receiver]]:
    """Return the checks in order; what plays with the keys comes last."""
    groups: tuple[str, ...] = ("direct", "keys") if options.push_url else ("module", "last")
    if not options.push_url and not options.interop:
        groups = ("ssf", *groups)
    wanted = [
        one
        for one in CHECKS
        if not options.only
        or one.name in options.only
        or bool(options.only & set(one.requirement_ids))
    ]
    return [one for group in groups for one in wanted if one.group == group]


def _server_tls(options: Options) -> ssl.SSLContext | None:
    if options.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    return context
