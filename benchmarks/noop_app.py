"""The denominator: a starlette route that reads a POST body, does nothing and answers 202."""

from __future__ import annotations

import argparse

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.serving import port_option, serve


async def accept_anything(request: Request) -> Response:
    await request.body()
    return Response(status_code=202)


def create_app() -> Starlette:
    """Return the app: `POST /events` and nothing else, no middleware added."""
    return Starlette(routes=[Route("/events", accept_anything, methods=["POST"])])


def main() -> None:
    """Serve on loopback until terminated."""
    options = argparse.ArgumentParser(description=__doc__, parents=[port_option()]).parse_args()
    serve(create_app(), port=options.port)


if __name__ == "__main__":
    main()
