"""Running the checks of a transmitter: which, in which variants, and cleaning up between them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Final

from conformance.suite.checks import Check, Finding, Outcome, Result, run_check
from conformance.suite.http import Asker, AskError
from conformance.suite.mailbox import PostOffice
from conformance.suite.transmitter import (
    authorization,
    discovery,
    interop,
    management,
    polling,
    pushing,
    refusals,
    status,
    verification,
)
from conformance.suite.transmitter.options import Delivery, Options, Profile
from conformance.suite.transmitter.party import Transmitter
from ssf.errors import SharedSignalsError

CHECKS: Final[tuple[Check[Transmitter], ...]] = tuple(
    one
    for module in (
        discovery,
        authorization,
        management,
        refusals,
        status,
        verification,
        polling,
        pushing,
        interop,
    )
    for one in module.checks.all
)
#: what a party may do wrong in so many ways that it ends a check
TROUBLES: Final = (AskError, OSError, ssl.SSLError, SharedSignalsError)


async def run_transmitter(options: Options, *, tell: Callable[[Result], None]) -> list[Result]:
    """Run all checks that fit the options, one after the other. tell: hears of each at once.

    Raises OSError when the push receiver's address cannot be had.
    """
    office = PostOffice(
        options.push.host,
        options.push.port,
        public_url=options.push.public_url,
        tls=_server_tls(options),
    )
    asker = Asker(options.trust, request_s=options.limits.request_s)
    tx = Transmitter(options, asker, office)
    results: list[Result] = []
    try:
        await office.start()
        trouble = await _start(tx)
        for delivery, check in _plan(options):
            tx.delivery = delivery or options.deliveries[0]
            variant = delivery.value if delivery else "once"
            if trouble is not None and check.name != "metadata_location":
                results.append(_not_run(check, variant, trouble))
            else:
                results.append(
                    await run_check(
                        check,
                        tx,
                        variant=variant,
                        limit_s=options.limits.check_s,
                        troubles=TROUBLES,
                    )
                )
                await tx.close_streams()
            tell(results[-1])
    finally:
        await tx.close_streams()
        await asker.close()
        await office.stop()
    return results


async def _start(tx: Transmitter) -> str | None:
    """Prepare; return why nothing else can run, None when it can."""
    try:
        await tx.start()
    except (AskError, SharedSignalsError) as problem:
        return str(problem)
    if tx.endpoint("configuration_endpoint") is None:
        return f"{tx.metadata_url} names no configuration_endpoint"
    if tx.token is None:
        told = tx.token_answer.status if tx.token_answer else "none was asked for"
        return f"there is no token ({told}): use --token, or --client-id and --client-secret"
    return None


def _plan(options: Options) -> list[tuple[Delivery | None, Check[Transmitter]]]:
    """Return the checks in order; None: not for one way of delivery."""
    interop_only = options.profile is Profile.CAEP_INTEROP
    wanted = [one for one in CHECKS if not options.only or _is_named(one, options.only)]

    def of(*groups: str) -> list[Check[Transmitter]]:
        return [one for one in wanted if one.group in groups]

    plan: list[tuple[Delivery | None, Check[Transmitter]]] = [
        (None, one) for one in of("once", *(("interop",) if interop_only else ()))
    ]
    for delivery in options.deliveries:
        groups = ("each", delivery.value, *(() if interop_only else ("managed",)))
        plan += [(delivery, one) for one in of(*groups)]
    return plan + [(None, one) for one in of("last")]


def _is_named(check: Check[Transmitter], names: frozenset[str]) -> bool:
    return check.name in names or bool(names & set(check.requirement_ids))


def _not_run(check: Check[Transmitter], variant: str, trouble: str) -> Result:
    finding = Finding(
        requirement_ids=check.requirement_ids, outcome=Outcome.FAIL, text=f"not run: {trouble}"
    )
    return Result(
        name=check.name,
        variant=variant,
        title=check.title,
        requirement_ids=check.requirement_ids,
        findings=(finding,),
        duration_s=0.0,
    )


def _server_tls(options: Options) -> ssl.SSLContext | None:
    """Return the TLS of our push receiver. Raises OSError for files that cannot be read."""
    if options.push.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.push.certificate, options.push.key)
    return context


def names_of_checks() -> Sequence[str]:
    """Return the names of all checks."""
    return [one.name for one in CHECKS]
