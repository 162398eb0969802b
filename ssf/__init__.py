"""Shared Signals protocol core: rules and shapes, no input or output.

Owns the Security Event Token (RFC 8417), subject identifiers (RFC 9493), the CAEP, RISC, SSF and
SCIM event types, signatures, and the messages of push (RFC 8935), poll (RFC 8936) and stream
management (OpenID SSF 1.0). Comes in: bytes, keys and the present time, all as arguments.
Goes out: frozen values, or an error of `ssf.errors` that names the requirement it stands on::

    raw SET --> jose.split_jws --> jose.check_header --> jose.verify --> secevent.parse_set
                                        ^                    ^               |
                                  allow-list           jwks.JWKSet.find      v
                                                                 SecurityEventToken
"""
