"""What the hub does about risk: containments and Universal Logout.

Owns the registry of apps, identity providers and webhooks; containments with their causes; the
durable tasks that carry them out and undo them. Comes in: orders of the policy (who, at which
level, because of which causes, with which actions). Goes out: SCIM membership changes, Global
Token Revocation and Back-Channel Logout requests, signed webhooks; and session-revoked events,
which the core publishes because streams are not known here::

    ContainmentOrder
          |                                         one transaction per batch
          v
    service.plan -> planning.decide -> drafts       open | attach | reopen | hold | update | release
          |
          v
    tasks:  0 quarantine -> 1 IdP sessions -> 2 apps by sensitivity -> 3 people
          |  a stage waits for the one before it, at most 500 ms
          v
    worker.TaskSource -> performing.perform -> outbound HTTP    one attempt, one lane, no database
          |
          v
    settlement.settle_tasks                         fenced: done | later | failed; stages; closing

When every cause is cleared, what was not sent is cancelled, what was sent finishes, and then the
members we added ourselves, and only those, are removed in reverse order.

Public: `service` (plan, local tasks, views, retry), `registry.service` (apps, webhooks),
`settlement.OPERATIONS` (for the writer), `worker.TaskSource` (for the delivery processes).
"""

from actions.settlement import OPERATIONS

__all__ = ["OPERATIONS"]
