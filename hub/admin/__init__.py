"""The admin JSON API, one declaration per kind of object.

kinds       what a kind of object is; makes the routes, paging and ETags from it
context     what an admin request works with
bodies      strict request bodies
writing     one write: the change, its audit entry and its kept answer, in one transaction
idempotency Idempotency-Key: a repeat gets the first answer
clients, providers, apps, policies
            what an admin configures
people      users and devices
tenants     issuers of their own, for an owner at the root
streams, deliveries
            streams; receipts of SETs, dead letters, sending again
operations  what an admin watches: containments, tasks, signals, keys, audit
releases    a person lets a contained user go
described   the routes that are not admin objects, for the document
examples    one answer of each kind, for the document; the tests compare with exactly these
openapi     the OpenAPI 3.1 document of the whole hub
commands    the same objects on the command line; client is how they are reached
"""
