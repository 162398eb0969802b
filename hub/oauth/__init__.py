"""OAuth 2.0 for clients: short-lived access tokens instead of secrets in every request.

store    tokens that were revoked
tokens   access tokens: made, verified, remembered
server   the token endpoint's rules, by Authlib
routes   token, revoke, introspect, metadata
"""
