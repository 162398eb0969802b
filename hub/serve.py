"""`signalhub serve`: prepare, print what was made up, supervise."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from hub.bootstrap import (
    MadeUp,
    check_certificate,
    listen,
    prepare,
    process_configs,
    secret_key,
)
from hub.settings import Settings
from hub.supervisor import Supervisor
from runtime.logs import configure_logs


def serve(settings: Settings) -> None:
    """Run the hub until SIGTERM or SIGINT. Raises SettingsError, SchemaMismatch."""
    configure_logs(settings.log_level, process="supervisor")
    check_certificate(settings)
    made_up = MadeUp()
    key = secret_key(settings, made_up)
    asyncio.run(prepare(settings, key, made_up))
    listening = listen(settings) if settings.role != "worker" else None
    issuer = settings.issuer_at(_port_of(listening, settings))
    run_dir = Path(tempfile.mkdtemp(prefix="signalhub-"))
    try:
        configs = process_configs(
            settings,
            key=key,
            issuer=issuer,
            run_dir=run_dir,
            listen_fd=listening.fileno() if listening else None,
        )
        _announce(settings, issuer, made_up)
        metrics_dir = run_dir / "metrics"
        metrics_dir.mkdir()
        supervisor = Supervisor(configs, listening=listening, metrics_dir=metrics_dir)
        asyncio.run(supervisor.run())
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def _port_of(listening: object, settings: Settings) -> int:
    port = getattr(listening, "getsockname", lambda: (None, settings.port))()[1]
    return int(port)


def _announce(settings: Settings, issuer: str, made_up: MadeUp) -> None:
    lines = [f"Signalhub serves {issuer}", *(f"  made up: {line}" for line in made_up.lines)]
    if settings.dev_insecure:
        lines.append(
            "  development mode: http and loopback addresses are allowed; not for production"
        )
    lines.append(f"  metadata: {issuer}/.well-known/ssf-configuration")
    lines.append(f"  API description: {issuer}/openapi.json")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
