"""Risk: who is concerned by a signal, how bad it is, and what policy says about that.

Owns users, devices and their names, the index of sessions, findings and remedies, levels and their
history, and the entity risk policy. Comes in: normalised signals, sessions, the word of an
administrator, the time. Goes out: one `Assessment` per user who is concerned, which the pipeline
turns into containments and events; risk itself acts on nobody::

    service.assess(connection, signals)            one transaction per batch
      mapping.drafts, naming.names        (pure)     what does it say, whom does it name
      placement.place                     (pure)     names -> entities; unknown ones stay visible
      sessions.reports.apply_reports                 sessions established or revoked
      levels.service.recompute                       read once per table, judge, write in bulk
        assessment.record                 (pure)     join reports, let remedies and time close them
        level.level                       (pure)     cap, maximum, corroboration, floor, pin
        policy.decide                     (pure)     first matching rule

    service.reassess_due       expiry, the end of a pin, a new session or owner: the same way
    service.set_user_risk      an administrator's word: the same way

Folders: `entities`, `sessions`, `findings`, `levels`, `policies`, `ips`, `baselines`, `app_use`,
each with a `store.py`.
"""

from risk.baselines.service import RECORD_GOOD, WITHDRAW_SESSION
from risk.contexts.service import RECORD
from risk.inline.service import NOTE_APP, PROVE, SETTLE, SETTLE_STEP_UP, SHARE_TRAIL
from risk.ips.service import REPORT_IPS
from risk.reviews.service import FINISH_REVIEW, PUT_OFF_REVIEW
from risk.sessions.service import END_SESSION, PUT_SESSION
from risk.signins.failures import COUNT_FAILURES
from risk.signins.service import RECORD_SIGN_IN

__all__ = [
    "COUNT_FAILURES",
    "END_SESSION",
    "FINISH_REVIEW",
    "OPERATIONS",
    "NOTE_APP",
    "PROVE",
    "PUT_OFF_REVIEW",
    "PUT_SESSION",
    "RECORD",
    "RECORD_GOOD",
    "RECORD_SIGN_IN",
    "REPORT_IPS",
    "SETTLE",
    "SETTLE_STEP_UP",
    "SHARE_TRAIL",
    "WITHDRAW_SESSION",
]

#: hot writes that the core process executes for the others
OPERATIONS = (
    PUT_SESSION,
    END_SESSION,
    REPORT_IPS,
    SETTLE,
    SETTLE_STEP_UP,
    NOTE_APP,
    SHARE_TRAIL,
    PROVE,
    RECORD,
    RECORD_GOOD,
    WITHDRAW_SESSION,
    RECORD_SIGN_IN,
    COUNT_FAILURES,
    FINISH_REVIEW,
    PUT_OFF_REVIEW,
)
