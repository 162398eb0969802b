"""Who and what: users and devices, the names they go by, and which device belongs to whom.

Owns entities, aliases (normalised subject identifiers, RFC 9493) and links from devices to users.
A signal never makes a user; it may make a device of a known user.
"""
