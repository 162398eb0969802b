"""The admin JSON API, one declaration per kind of object.

kinds       what a kind of object is; makes the routes, paging, ETags and audit entries from it
registry    clients, providers, apps, webhooks, policies: what an admin configures
people      users and devices
operations  what an admin watches: streams, containments, tasks, deliveries, signals, audit
openapi     the OpenAPI 3.1 document of the whole hub, made from the same declarations
commands    the same objects on the command line
"""
