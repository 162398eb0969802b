"""Our own hub as transmitter under the conformance suite: what is run, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from jwcrypto.jwk import JWK

from tests.scenarios.tls_hub import TLSHub

RUN_S: Final = 600.0
PLACES: Final = ("root", "tenant")


@dataclass
class Run:
    """What one run of the command left."""

    code: int
    told: str
    document: Mapping[str, Any]
    junit: ET.Element

    def outcome(self, requirement_id: str) -> str:
        found: str = self.document["requirements"].get(requirement_id, {}).get("outcome", "absent")
        return found


async def run(hub: TLSHub, folder: Path, issuer: str, admin: str, *more: str) -> Run:
    """Run the command against one issuer of the hub, with a push receiver on TLS."""
    stranger = await hub.client(issuer, "stranger", token=admin)
    members: dict[str, Any] = {}
    if "--client-key" in more:
        key = JWK.generate(kty="EC", crv="P-256", kid="suite", use="sig", alg="ES256")
        (folder / "key.json").write_text(key.export_private())
        jwks = {"keys": [key.export_public(as_dict=True)]}
        members = {"auth_method": "private_key_jwt", "jwks": jwks}
    client = await hub.client(issuer, "suite", token=admin, **members)
    filled = [one.format(client=client, folder=folder) for one in more]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub.cli", "conformance", "transmitter", issuer, *filled,
        "--ca", str(hub.ca),
        "--stranger-token", stranger.token,
        "--push-cert", str(hub.tls / "cert.pem"),
        "--push-key", str(hub.tls / "key.pem"),
        "--trigger-url", f"{issuer}/admin/v1/events:emit",
        "--trigger-header", f"Authorization: Bearer {admin}",
        # Ten times what an idle machine takes.
        "--request-s", "60", "--event-s", "120", "--check-s", "400", "--quiet-s", "1",
        "--json", str(folder / "out.json"),
        "--junit", str(folder / "out.xml"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(RUN_S):
        told, _ = await process.communicate()
    return Run(
        code=process.returncode or 0,
        told=told.decode(),
        document=json.loads((folder / "out.json").read_text()),
        junit=ET.parse(folder / "out.xml").getroot(),  # noqa: S314 - our own file
    )


async def run_all(folder: Path, settings: dict[str, str]) -> dict[str, Run]:
    """Do two runs at the same time against one hub, which mostly wait.

    settings: of a hub on PostgreSQL, none for one on SQLite.
    """
    hub = TLSHub(folder, settings)
    for place in PLACES:
        (folder / place).mkdir()
    await hub.start()
    try:
        green = await hub.add_tenant("x")
        secret = ("--client-id", "{client.client_id}", "--client-secret", "{client.token}")
        static = ("--token", "{client.token}")
        keyed = ("--client-id", "{client.client_id}", "--client-key", "{folder}/key.json")
        interop = ("--profile", "caep-interop")
        # Each database sees both profiles and both kinds of issuer, all see every kind of token.
        root: tuple[str, ...] = secret
        tenant: tuple[str, ...] = (*static, *interop)
        if settings:
            root, tenant = (*static, *interop), (*keyed, "--long-poll-s", "200")
        first, second = await asyncio.gather(
            run(hub, folder / "root", hub.issuer("default"), hub.admin_token, *root),
            run(hub, folder / "tenant", hub.issuer("x"), green, *tenant),
        )
    finally:
        await hub.stop()
    return {"root": first, "tenant": second}
