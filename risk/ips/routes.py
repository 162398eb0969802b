"""HTTP of IP risk: the risk events API, and who says what of an address.

Scopes: `signals.write` to report, `risk.read` to look (contracts §8).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from risk.deps import RiskDeps
from risk.ips.model import IPReport, normal_ip, parse_events, render_claims
from risk.ips.service import REPORT_IPS
from risk.ips.throttle import too_many
from risk.networks.rendering import render_network
from risk.networks.service import Networks
from risk.zones.service import Zones
from runtime.caller import Caller
from runtime.clock import epoch_s
from runtime.errors import Invalid, Refused
from ssf.errors import RemoteProtocolError
from ssf.strict_json import parse_array

REPORT_SCOPE: Final = "signals.write"
READ_SCOPES: Final = ("risk.read", "risk.write")
ACCEPTED: Final = 202
#: twenty events with a hundred subjects each, and their messages cut short
BODY_BYTES_MAX: Final = 1024 * 1024
JSON_MEDIA_TYPE: Final = "application/json"

log = structlog.get_logger()
_calls_total = Counter("hub_risk_ip_reports_total", "Calls of the risk events API.", ["outcome"])


class UnsupportedMediaType(Refused):
    """The body is not JSON."""

    status = 415


async def report_ips(request: Request) -> Response:
    """Take up to 20 risk events about IP addresses: 202 after the commit.

    Raises what hub renders: Invalid (400), TooManyRequests (429 with Retry-After), 401, 403, 415.
    Source: threat model §4.3; 24 h of life, 20 events per call, 30 calls per minute and client.
    """
    caller: Caller = request.state.caller
    caller.require(REPORT_SCOPE)
    deps: RiskDeps = request.app.state.risk
    now = deps.clock.now()
    try:
        deps.ip_refusals.check(caller, now)
        document = await _json_array(request)
        reporter = await deps.reporter_of(caller.tenant_id, caller.client_id)
        claims = parse_events(document, client_id=caller.client_id, mode=reporter.mode, now=now)
        report = IPReport(
            tenant_id=caller.tenant_id,
            client_id=caller.client_id,
            claims=claims,
            received_at=now,
        )
        wait_s = await deps.writer.submit(REPORT_IPS, report)
        if wait_s:
            deps.ip_refusals.note(caller, now + timedelta(seconds=wait_s))
            raise too_many(wait_s)
    except Refused as refusal:
        _calls_total.labels(str(refusal.status)).inc()
        raise
    _calls_total.labels(str(ACCEPTED)).inc()
    log.info(
        "ip.reported",
        tenant_id=caller.tenant_id,
        client_id=caller.client_id,
        claims=len(claims),
        mode=reporter.mode.value,
    )
    return Response(status_code=ACCEPTED, headers={"cache-control": "no-store"})


async def get_ip(request: Request) -> Response:
    """Answer who says what of an address: claims, feeds, zones; and what that adds up to."""
    caller: Caller = request.state.caller
    caller.require(*READ_SCOPES)
    deps: RiskDeps = request.app.state.risk
    address = normal_ip(request.path_params["ip"], "ip")
    claims = await deps.ip_claims.of(caller.tenant_id, str(address))
    reporters = {
        claim.source: await deps.reporter_of(caller.tenant_id, claim.source) for claim in claims
    }
    now = deps.clock.now()
    shown = render_claims(address, claims, reporters, now=now)
    networks: Networks = request.app.state.networks
    shown |= render_network(str(address), networks, now=epoch_s(now))
    zones: Zones = request.app.state.zones
    shown |= await zones.of_address(caller.tenant_id, str(address))
    return Response(
        msgspec.json.encode(shown),
        media_type=JSON_MEDIA_TYPE,
        headers={"cache-control": "no-store"},
    )


async def _json_array(request: Request) -> list[Any]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send the body as {JSON_MEDIA_TYPE}.")
    try:
        return parse_array(await request.body(), bytes_max=BODY_BYTES_MAX, error=_unacceptable)
    except RemoteProtocolError as error:
        raise Invalid(f"The body is not acceptable: {error.description}.") from error


def _unacceptable(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="PD-3")


ROUTES: Final = (
    Route("/api/v1/risk/events/ip", report_ips, methods=["POST"]),
    Route("/v1/ip/{ip}", get_ip, methods=["GET"]),
)
