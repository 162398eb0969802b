"""Event types: one typed, frozen class per event type URI.

`common` holds what families share, `caep`, `risc`, `ssf`, `scim` and `vendor` the types, and
`registry` leads from a type URI to its class and back.
"""
