"""Real gateways from Debian's packages, with the very configuration that the guide shows."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.conftest import install

GUIDE = Path(__file__).parents[2] / "docs/integrate-gateway.md"
LIMIT_S = 30.0
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Places:
    """Where things are here, in place of what the guide says."""

    hub: str
    app: str
    app_id: str
    token: str


def block(language: str, section: str = "", at: int = 0) -> str:
    """Return a block of the guide in a language: the first one, or one of a section's."""
    guide = GUIDE.read_text().partition(f"\n## {section}\n")[2] if section else GUIDE.read_text()
    found: list[str] = [text for name, text in _BLOCK.findall(guide) if name == language]
    return found[at]


def put_in(text: str, places: Places, listen: str) -> str:
    """Return a configuration of the guide with the addresses of this machine."""
    for printed, here in (
        ("https://hub.example.com", places.hub),
        ("http://127.0.0.1:3000", f"http://{places.app}"),
        ("127.0.0.1:3000", places.app),
        ("GATEWAY_TOKEN", places.token),
        ("APP_ID", places.app_id),
        ("listen 8080", f"listen {listen}"),
        ("bind :8080", f"bind {listen}"),
        (":8080 {", f"http://{listen} {{"),
    ):
        text = text.replace(printed, here)
    return text


def free_address() -> str:
    """Return an address of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def program(name: str, package: str) -> str:
    """Return the path of a program, installing its package if needed."""
    for attempt in range(2):
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if found:
            return found
        if attempt == 0:
            install(package)
    pytest.fail(f"no program {name} after installing {package}")


@contextmanager
def nginx(folder: Path, places: Places, behind: str | None = None) -> Iterator[str]:
    """Run nginx; yields its address. behind: a proxy whose X-Forwarded-For is believed."""
    listen = free_address()
    proxy = f"set_real_ip_from {behind}; real_ip_header X-Forwarded-For;" if behind else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"{proxy}\n{put_in(block('nginx'), places, listen)}\n}}\n"
    )
    command = [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with running(command, listen, folder):
        yield f"http://{listen}"


@contextmanager
def caddy(folder: Path, places: Places) -> Iterator[str]:
    """Run Caddy; yields its address."""
    listen = free_address()
    options = "{\n    admin off\n    auto_https off\n}\n"
    (folder / "Caddyfile").write_text(options + put_in(block("caddy"), places, listen))
    command = [
        program("caddy", "caddy"),
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(folder / "Caddyfile"),
    ]
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with running(command, listen, folder, home):
        yield f"http://{listen}"


@contextmanager
def haproxy(folder: Path, places: Places) -> Iterator[str]:
    """Run HAProxy with its Lua action; yields its address."""
    listen = free_address()
    (folder / "signalhub.lua").write_text(block("lua"))
    text = put_in(block("haproxy"), places, listen)
    text = text.replace("/etc/haproxy/signalhub.lua", str(folder / "signalhub.lua"))
    (folder / "haproxy.cfg").write_text(text)
    command = [program("haproxy", "haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
    with running(command, listen, folder):
        yield f"http://{listen}"


GATEWAYS = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}


@contextmanager
def running(
    command: list[str], listen: str, folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block is left; fails with its words when it does not come up."""
    log = folder / "log"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(variables or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        _wait_for(listen, process, log)
        yield
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def _wait_for(listen: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = listen.partition(":")
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return
        except OSError:
            continue
    pytest.fail(f"{process.args!r} does not listen: {log.read_text()[-2000:]}")
