"""Streams on the real hub, receivers for them, and events to fill them: shared equipment.

Everything goes the way an operator, an app and a vendor would take: clients and providers by the
admin API, streams by SSF, events by signed SETs about users the hub knows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import uvloop

from benchmarks.hub_process import ADMIN_TOKEN, HubProcess, register_sessions
from benchmarks.loadgen import Load, LoadReport, generate_load, run_load
from benchmarks.receiver import Verdict, host_of
from benchmarks.serving import ServerProcess, cpu_of, running
from benchmarks.tokens import Subjects, TokenPlan, email_of, public_jwks, signed_tokens

ISSUER: Final = "https://vendor.example"
AUDIENCE: Final = "https://hub.example"
INTAKE_TOKEN: Final = "benchmark-intake-token"  # noqa: S105 - lives for one run
REVOKED: Final = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
LEVEL_CHANGED: Final = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change"
PUSH: Final = "urn:ietf:rfc:8935"
POLL: Final = "urn:ietf:rfc:8936"
FEEDING_CONNECTIONS: Final = 64
CREATING_CONNECTIONS: Final = 16
LIMIT_S: Final = 300.0
LOOK_AGAIN_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A client with the right to streams."""

    client_id: str
    token: str


class CPUByRole(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of the hub's processes by what they do."""

    api: float
    core: float
    delivery: float

    def since(self, before: CPUByRole) -> CPUByRole:
        """Return what was spent since `before`."""
        return CPUByRole(
            api=self.api - before.api,
            core=self.core - before.core,
            delivery=self.delivery - before.delivery,
        )

    @property
    def total(self) -> float:
        """All roles together."""
        return self.api + self.core + self.delivery


def cpu_by_role(hub: HubProcess) -> CPUByRole:
    """Return what the hub's processes have used so far; the log tells who is who."""
    used = dict.fromkeys(("api", "core", "delivery"), 0.0)
    for line in hub.log_file.read_text(errors="replace").splitlines():
        if '"process.started"' in line:
            started = json.loads(line)
            used[started["role"]] += cpu_of(started["pid"])
    return CPUByRole(**used)


def sign_with(hub: HubProcess, algorithm: str) -> None:
    """Let SETs be signed with another algorithm from now on."""
    key = hub.call("POST", "/admin/v1/keys:prepare", {"purpose": "set", "alg": algorithm})
    hub.call("POST", f"/admin/v1/keys/{key['id']}/activate", {"at_once": True})


def add_app(hub: HubProcess, name: str) -> App:
    """Register a client that may have streams."""
    made = hub.create("clients", {"name": name, "scopes": ["ssf.read", "ssf.manage"]})
    return App(client_id=made["id"], token=made["token"])


def add_streams(hub: HubProcess, app: App, deliveries: Sequence[dict[str, str]]) -> None:
    """Create one stream per delivery, for level changes and what is relayed.

    Raises RuntimeError on a refusal.
    """
    requests = []
    for delivery in deliveries:
        body = msgspec.json.encode(
            {"events_requested": [LEVEL_CHANGED, REVOKED], "delivery": delivery}
        )
        requests.append(_request(hub, "POST", "/ssf/streams", app.token, body))
    _send_all(hub, requests)


def stream_ids(hub: HubProcess, app: App) -> list[str]:
    """Return the ids of an app's streams."""
    answer = httpx2.get(
        f"{hub.url}/ssf/streams", headers={"authorization": f"Bearer {app.token}"}, timeout=LIMIT_S
    )
    return [stream["stream_id"] for stream in answer.raise_for_status().json()]


def set_status(hub: HubProcess, app: App, status: str) -> None:
    """Set the status of all streams of an app."""
    bodies = (
        msgspec.json.encode({"stream_id": stream_id, "status": status})
        for stream_id in stream_ids(hub, app)
    )
    _send_all(hub, [_request(hub, "POST", "/ssf/status", app.token, body) for body in bodies])


def us_each(used: CPUByRole, count: int) -> dict[str, float]:
    """Return CPU microseconds per piece of work, by role."""
    seconds = msgspec.structs.asdict(used)
    return {role: round(spent / count * 1e6, 1) for role, spent in seconds.items()}


def push_to(receiver: ServerProcess, number: int, *, hosts: int = 0) -> dict[str, str]:
    """Return the delivery object of a push stream to a receiver, on one of its hosts if it has."""
    url = urlsplit(receiver.url)
    host = host_of(number % hosts) if hosts else url.hostname
    return {"method": PUSH, "endpoint_url": f"http://{host}:{url.port}/s/{number}"}


def set_level(hub: HubProcess, emails: Sequence[str], level: str) -> None:
    """Set users' levels as an admin; each change is one event for all streams."""
    body = msgspec.json.encode({"riskLevel": level})
    _send_all(
        hub,
        [
            _request(hub, "PUT", f"/api/v1/users/email:{email}/risk", ADMIN_TOKEN, body)
            for email in emails
        ],
    )


def _request(hub: HubProcess, method: str, path: str, token: str, body: bytes) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(hub.url).netloc}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _send_all(hub: HubProcess, requests: Sequence[bytes]) -> None:
    report = uvloop.run(generate_load(hub.url, requests, connections=CREATING_CONNECTIONS))
    if set(report.statuses) - {200, 201, 204}:
        raise RuntimeError(f"the hub refused: {report.statuses}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A registered provider whose SETs are signed ahead: one about each of its subjects."""

    plan: TokenPlan
    tokens: Path
    events_url: str

    def feed(self, *, first: int, count: int) -> LoadReport:
        """Push SETs `first` to `first + count`. Raises RuntimeError unless all are accepted."""
        report = run_load(
            Load(
                url=self.events_url,
                tokens_file=str(self.tokens),
                bearer_token=INTAKE_TOKEN,
                first=first,
                count=count,
                connections=FEEDING_CONNECTIONS,
            )
        )
        if set(report.statuses) != {202}:
            raise RuntimeError(f"the hub refused SETs: {report.statuses}")
        return report


def add_vendor(hub: HubProcess, *, label: str, subjects: int) -> Vendor:
    """Register a provider whose SETs are relayed to all streams, and its subjects as users.

    They say that sessions are over, each of another user: what raised so many users at once would
    be taken for a provider that runs away, and quarantined.
    """
    plan = TokenPlan(
        issuer=ISSUER,
        audience=AUDIENCE,
        count=subjects,
        label=label,
        subject_count=subjects,
        subject_domain=f"{label}.example",
        subjects=Subjects.USER,
    )
    tokens = signed_tokens(plan)
    provider = hub.create(
        "providers",
        {
            "name": f"vendor {label}",
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "jwks": msgspec.json.decode(public_jwks()),
            "authorization_header": f"Bearer {INTAKE_TOKEN}",
            "source_class": "mdm",
        },
    )
    hub.create("relays", {"name": f"relay {label}", "event_types": [REVOKED], "mode": "enforce"})
    register_sessions(hub.url, ADMIN_TOKEN, plan)
    return Vendor(plan=plan, tokens=tokens, events_url=provider["events_url"])


def emails(vendor: Vendor, count: int) -> list[str]:
    """Return the addresses of the vendor's first users."""
    return [email_of(vendor.plan, number) for number in range(count)]


@contextmanager
def receiving(*, delay_ms: float = 0.0, hosts: int = 0) -> Iterator[ServerProcess]:
    """Run a push receiver. hosts: addresses of its own that it listens on."""
    with running(["benchmarks.receiver", f"--delay-ms={delay_ms}", f"--hosts={hosts}"]) as receiver:
        yield receiver


def wait_for(receiver: ServerProcess, count: int) -> Verdict:
    """Wait until a receiver has `count` SETs and return its verdict. Raises TimeoutError."""
    deadline = time.monotonic() + LIMIT_S
    with httpx2.Client(base_url=receiver.url, timeout=LIMIT_S) as client:
        while (came := client.get("/count").json()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{came} of {count} SETs came")
            time.sleep(LOOK_AGAIN_S)
        return msgspec.convert(client.get("/verdict").json(), Verdict)


def forget(receiver: ServerProcess) -> None:
    """Let a receiver begin anew."""
    httpx2.post(f"{receiver.url}/forget").raise_for_status()


def wait_until(hub: HubProcess, query: str, expected: object) -> None:
    """Wait until a query of the hub's database gives `expected`. Raises TimeoutError."""
    deadline = time.monotonic() + LIMIT_S
    while (found := hub.rows(query)[0][0]) != expected:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{query}: {found!r}, not {expected!r}")
        time.sleep(LOOK_AGAIN_S)
