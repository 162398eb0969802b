"""Descriptions of the OAuth routes, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from hub.admin.operation import Described

_FORM: Final = "application/x-www-form-urlencoded"
_REFUSED: Final = {
    400: "refused: error and error_description",
    401: "client authentication failed",
}


def _form(members: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text} for name, text in members.items()
        },
    }


OAUTH: Final = (
    Described(
        path="/oauth/token",
        method="POST",
        operation_id="issue_token",
        summary="Get an access token for an hour (RFC 6749 §4.4; Basic or body secret).",
        tag="oauth",
        body=_form(
            {
                "grant_type": "client_credentials",
                "scope": "fewer than the client has",
                "resource": "what alone the token is for (RFC 8707)",
            }
        ),
        body_type=_FORM,
        answers={200: "access_token, token_type, expires_in, scope", **_REFUSED},
        prescribed=dict.fromkeys(_REFUSED, "OAuthError"),
    ),
    Described(
        path="/oauth/revoke",
        method="POST",
        operation_id="revoke_token",
        summary="Revoke an access token of the calling client (RFC 7009).",
        tag="oauth",
        body=_form({"token": "the access token"}),
        body_type=_FORM,
        answers={200: "it is not valid any more, or never was", **_REFUSED},
        prescribed=dict.fromkeys(_REFUSED, "OAuthError"),
        answer_type=None,
    ),
    Described(
        path="/oauth/introspect",
        method="POST",
        operation_id="introspect_token",
        summary="Tell whether an access token is valid (RFC 7662).",
        tag="oauth",
        body=_form({"token": "the access token"}),
        body_type=_FORM,
        answers={200: "active, and of a valid token its claims", **_REFUSED},
        prescribed=dict.fromkeys(_REFUSED, "OAuthError"),
    ),
    Described(
        path="/.well-known/oauth-authorization-server",
        method="GET",
        operation_id="oauth_server_metadata",
        summary="Metadata of the authorization server (RFC 8414).",
        tag="oauth",
        answers={200: "the metadata"},
    ),
    Described(
        path="/.well-known/oauth-protected-resource",
        method="GET",
        operation_id="oauth_resource_metadata",
        summary="Metadata of the protected resource (RFC 9728).",
        tag="oauth",
        answers={200: "the metadata"},
    ),
    Described(
        path="/.well-known/oauth-protected-resource/{path}",
        method="GET",
        operation_id="oauth_endpoint_metadata",
        summary="Metadata of `{issuer}/ssf` or one of its endpoints (RFC 9728 §3.1).",
        tag="oauth",
        answers={200: "the metadata", 404: "no resource of its own"},
    ),
    Described(
        path="/oauth/jwks.json",
        method="GET",
        operation_id="oauth_jwks",
        summary="Keys that sign access tokens (RFC 7517).",
        tag="oauth",
        answers={200: "the JWK Set"},
    ),
)
