"""`signalhub serve`: prepare, print what was made up, supervise."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hub.settings import Settings
from runtime.logs import configure_logs

if TYPE_CHECKING:
    from hub.bootstrap import MadeUp

#: tells prometheus_client where processes share their metrics
METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
METRICS_FOLDER: Final = "metrics"


@contextmanager
def run_folder() -> Iterator[Path]:
    """Make a folder for what lives as long as the hub does, and have metrics kept in it.

    Enter it before settings are read: whatever imports prometheus_client first decides whether
    processes share their metrics.
    """
    folder = Path(tempfile.mkdtemp(prefix="signalhub-"))
    try:
        metrics_dir = folder / METRICS_FOLDER
        metrics_dir.mkdir()
        os.environ[METRICS_DIR_VARIABLE] = str(metrics_dir)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def serve(settings: Settings, run_dir: Path) -> None:
    """Run the hub until SIGTERM or SIGINT; run_dir: see `run_folder`.

    Raises SettingsError, SchemaMismatch, and RuntimeError when metrics would not be shared.
    """
    configure_logs(settings.log_level, process="supervisor")
    # What imports make stays: looking for garbage in it takes a sixth of the start.
    gc.disable()
    from hub.lock import hold_database  # noqa: PLC0415

    with hold_database(settings.database_url):
        _serve(settings, run_dir)


def _serve(settings: Settings, run_dir: Path) -> None:
    import asyncio  # noqa: PLC0415

    from prometheus_client import values  # noqa: PLC0415

    from hub.bootstrap import (  # noqa: PLC0415
        MadeUp,
        check_certificate,
        listen,
        prepare,
        process_configs,
        secret_key,
    )
    from hub.process import load_roles, run_process, settle_memory  # noqa: PLC0415
    from hub.supervisor import Supervisor  # noqa: PLC0415

    check_certificate(settings)
    # Before anything is made up: a start that ends here would take the admin token with it.
    listening = listen(settings) if settings.role != "worker" else None
    issuer = settings.issuer_at(listening.getsockname()[1] if listening else settings.port)
    made_up = MadeUp()
    key = secret_key(settings, made_up)
    # A process that does not listen signs as the hub that people reach.
    issuer = asyncio.run(prepare(settings, key, made_up, serves=issuer if listening else None))
    configs = process_configs(
        settings,
        key=key,
        issuer=issuer,
        run_dir=run_dir,
        listen_fd=listening.fileno() if listening else None,
    )
    _announce(settings, issuer, made_up)
    load_roles()
    if values.ValueClass is values.MutexValue:
        raise RuntimeError(
            "prometheus_client was imported too early: each process would count alone"
        )
    metrics_dir = run_dir / METRICS_FOLDER
    for file in metrics_dir.iterdir():
        # The supervisor counts nothing.
        file.unlink()
    settle_memory()
    Supervisor(configs, run=run_process, listening=listening, metrics_dir=metrics_dir).run()


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
