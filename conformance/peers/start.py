"""Start one peer as a process: say where it listens, serve, and end with the parent."""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from conformance.peers.options import OPTIONS_OF_ROLE, AnyOptions, parse_options

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
BACKLOG = 1024
GRACE_S = 1
PARENT_CHECK_S = 0.2
STDIN_CHUNK_BYTES = 4096


def main(role: str, argv: Sequence[str]) -> None:
    """Run the peer `role` (vendor, idp, app) until it is told to end.

    Prints one JSON line with its URLs as soon as the socket listens; requests that arrive before
    the imports are done wait in the socket's queue. Ends by SIGTERM or SIGINT, when the process
    that started it ends, and with --until-stdin-closes at the end of standard input.
    Raises SystemExit for wrong options, and for a port that is taken.
    """
    parent = os.getppid()
    if role not in OPTIONS_OF_ROLE:
        raise SystemExit(f"unknown peer {role!r}: one of {', '.join(OPTIONS_OF_ROLE)}")
    options = parse_options(OPTIONS_OF_ROLE[role], argv, program=f"simulate {role}")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, options.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise SystemExit(
                f"simulate {role}: cannot listen on {HOST}:{options.port} ({error.strerror}); "
                "stop what listens there or choose another --port"
            ) from error
        base_url = f"http://{HOST}:{listener.getsockname()[1]}"
        first_line = {"peer": role, "name": options.name, "pid": os.getpid()}
        print(json.dumps({**first_line, **options.urls(base_url)}), flush=True)
        _serve(options, base_url, listener, parent)


def _serve(options: AnyOptions, base_url: str, listener: socket.socket, parent: int) -> None:
    server: uvicorn.Server | None = None

    def end(*_signal: object) -> None:
        if server is None:
            os._exit(0)  # Still importing: nothing to tidy up.
        server.should_exit = True

    # uvicorn takes these over while it serves and raises them again at its end; ours makes that a
    # normal exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    _watch(lambda: _wait_for_parent(parent), end)
    if options.until_stdin_closes:
        _watch(_wait_for_end_of_stdin, end)
    server = _server(options, base_url)
    server.run(sockets=[listener])


def _server(options: AnyOptions, base_url: str) -> "uvicorn.Server":
    # Imported late: the first line must not wait for them.
    import uvicorn  # noqa: PLC0415

    from conformance.peers.roles import build  # noqa: PLC0415

    peer = build(options, base_url)

    class Server(uvicorn.Server):
        @override
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            peer.let_go()
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            peer.application(),
            access_log=False,
            log_config=None,
            lifespan="on",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def _watch(wait: Callable[[], None], end: Callable[[], None]) -> None:
    """End the peer when `wait` returns; for good after the grace period, whatever still runs."""

    def watch() -> None:
        wait()
        end()
        last_resort = threading.Timer(2 * GRACE_S, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()

    threading.Thread(target=watch, daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    """Wait until the parent is gone: then somebody else adopts this process."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(PARENT_CHECK_S)


def _wait_for_end_of_stdin() -> None:
    while os.read(sys.stdin.fileno(), STDIN_CHUNK_BYTES):
        pass
