"""The rules of the token endpoint, by Authlib.

Authlib works synchronously, so what it asks for (the clients) is at hand before it is asked, and
what takes long (the signature) happens after it. Nothing outside this module knows Authlib.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]  # the library has no types
    AuthorizationServer,
    ClientMixin,
    OAuth2Error,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.errors import (  # type: ignore[import-untyped]  # as above
    InvalidScopeError,
)
from authlib.oauth2.rfc6749.grants import (  # type: ignore[import-untyped]  # as above
    ClientCredentialsGrant,
)
from authlib.oauth2.rfc6749.requests import (  # type: ignore[import-untyped]  # as above
    BasicOAuth2Payload,
)

from hub.auth import token_hash
from hub.store import Client

GRANT_TYPE: Final = "client_credentials"
SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")
#: proven before Authlib is asked
PROVEN_METHODS: Final = ("private_key_jwt", "tls_client_auth")
AUTH_METHODS: Final = (*SECRET_METHODS, *PROVEN_METHODS)
BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
CHALLENGE: Final = 'Basic realm="signalhub"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That a client proved itself otherwise than by a secret, and how."""

    method: str
    client_id: str
    #: of the certificate that tokens are bound to
    thumbprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request to the token endpoint, or to another that clients prove themselves at."""

    form: Mapping[str, str]
    authorization: str | None
    proof: Proof | None = None

    @property
    def basic(self) -> str | None:
        """Id and secret of HTTP Basic with a colon between; None without, or when unreadable."""
        scheme, _, value = (self.authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            return base64.b64decode(value.strip(), validate=True).decode()
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who gets a token, and for which scopes."""

    client: Client
    scopes: tuple[str, ...]


class Refusal(Exception):  # noqa: N818 - what the client is told
    """The request is refused with an error of RFC 6749 §5.2."""

    def __init__(self, status: int, body: Mapping[str, str], headers: Mapping[str, str]) -> None:
        super().__init__(body.get("error", ""))
        self.status = status
        self.body = dict(body)
        self.headers = dict(headers)


def grant_token(request: TokenRequest, clients: Mapping[str, Client]) -> Grant:
    """Decide on a token request. clients: by id. Raises Refusal.

    Source: RFC 6749 §4.4; requirements INT-21, OA-1 ff.
    """
    server = _Server(clients)
    server.register_grant(_ClientCredentials)
    granted: Grant = server.create_token_response(request)
    return granted


def authenticate(request: TokenRequest, clients: Mapping[str, Client]) -> Client:
    """Return the client that sends a request. Raises Refusal. Source: RFC 6749 §2.3.1."""
    server = _Server(clients)
    try:
        known: _KnownClient = server.authenticate_client(
            server.create_oauth2_request(request), AUTH_METHODS
        )
    except OAuth2Error as error:
        server.handle_error_response(None, error)
        raise AssertionError("unreachable") from error  # pragma: no cover - the line above raises
    return known.client


def one_way_only(request: TokenRequest) -> None:
    """Refuse a client that proves itself twice (RFC 6749 §2.3). Raises Refusal."""
    ways = (
        request.authorization is not None,
        "client_secret" in request.form,
        "client_assertion" in request.form,
    )
    if ways.count(True) > 1:
        text = _TEXTS["invalid_request"]
        raise Refusal(BAD_REQUEST, {"error": "invalid_request", "error_description": text}, {})


class _KnownClient(ClientMixin):  # type: ignore[misc]  # the library has no types
    """A client of ours, as Authlib asks for it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def check_client_secret(self, secret: str) -> bool:
        return hmac.compare_digest(token_hash(secret), self.client.token_hash)

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        if self.client.auth_method == "client_secret":
            return method in SECRET_METHODS
        # INVARIANT: a client with a key has no second, weaker way in.
        return method == self.client.auth_method

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == GRANT_TYPE


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]  # as above
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def validate_requested_scope(self) -> None:
        """Refuse a scope that the client was not given."""
        wanted = set((self.request.payload.scope or "").split())
        if not wanted <= set(self.request.client.client.scopes):
            raise InvalidScopeError("The client was not given all of these scopes.")


class _Request(OAuth2Request):  # type: ignore[misc]  # as above
    def __init__(self, request: TokenRequest) -> None:
        # INVARIANT: Authlib sees the pair that we read, or none. It reads what is malformed, too,
        # and a client that it alone sees would be tried without being counted.
        pair = request.basic
        headers = {}
        if pair:
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        # Whether http is let in is decided where the hub listens, not here.
        super().__init__("POST", "https://hub/oauth/token", headers=headers)
        self.payload = BasicOAuth2Payload(dict(request.form))
        self.proof = request.proof

    @property
    def form(self) -> Mapping[str, str]:
        form: Mapping[str, str] = self.payload.data
        return form


class _Server(AuthorizationServer):  # type: ignore[misc]  # as above
    def __init__(self, clients: Mapping[str, Client]) -> None:
        super().__init__()
        self._clients = clients
        self.register_token_generator("default", self._decide)
        for method in PROVEN_METHODS:
            self.register_client_auth_method(method, partial(_proven, method))

    def query_client(self, client_id: str) -> _KnownClient | None:
        client = self._clients.get(client_id)
        return None if client is None else _KnownClient(client)

    def create_oauth2_request(self, request: TokenRequest) -> _Request:
        return _Request(request)

    def _decide(self, *, client: _KnownClient, scope: str | None, **_about: Any) -> Grant:
        scopes = tuple(sorted(set((scope or "").split()))) or client.client.scopes
        return Grant(client=client.client, scopes=scopes)

    def save_token(self, _token: Grant, _request: object) -> None:
        """Nothing is stored: a token proves itself."""

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: Any, _headers: Any) -> Grant:
        if isinstance(body, Grant):
            return body
        code = dict(body)["error"]
        # One text per code: whether a client exists is nobody's business, nor is what was sent.
        told = {"error": code, "error_description": _TEXTS.get(code, "The request is refused.")}
        challenge = {"www-authenticate": CHALLENGE} if code in _CHALLENGED else {}
        raise Refusal(UNAUTHORIZED if challenge else status, told, challenge)


def _proven(
    method: str, query_client: Callable[[str], _KnownClient | None], request: _Request
) -> _KnownClient | None:
    """Return the client that proved itself by `method` before; Authlib's form of a method."""
    proof = request.proof
    return query_client(proof.client_id) if proof and proof.method == method else None


def invalid_client() -> Refusal:
    """Return the one refusal of whoever does not prove itself."""
    body = {"error": "invalid_client", "error_description": _TEXTS["invalid_client"]}
    return Refusal(UNAUTHORIZED, body, {"www-authenticate": CHALLENGE})


_CHALLENGED: Final = frozenset({"invalid_client"})
_TEXTS: Final = {
    "invalid_client": "Client authentication failed.",
    "invalid_request": "Send each parameter once, and one way to authenticate.",
    "invalid_scope": "The client was not given all of these scopes.",
    "unsupported_grant_type": "The grant type is client_credentials.",
}
