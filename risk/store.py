"""All tables of risk, for whoever needs the declared schema: one import declares them.

The tables and their queries live with what they are about:
entities, aliases, links (`risk.entities.store`); sessions (`risk.sessions.store`); detections,
clearances (`risk.findings.store`); levels, level_history, pins, reassessments
(`risk.levels.store`); policies (`risk.policies.store`); mappings (`risk.mappings.store`);
ip_claims, ip_report_windows (`risk.ips.store`); baselines, org_values (`risk.baselines.store`);
zones (`risk.zones.store`); feedback, labels (`risk.feedback.store`); feeds
(`risk.networks.store`); reminders (`risk.reminders.store`); sweeps (`risk.sweeps.store`).
"""

from __future__ import annotations

from risk.baselines.store import baselines, org_values
from risk.behaviours.store import behaviours
from risk.entities.store import aliases, entities, links
from risk.feedback.store import feedback, labels
from risk.findings.store import clearances, detections
from risk.ips.store import ip_claims, ip_report_windows
from risk.levels.store import level_history, levels, pins, reassessments
from risk.mappings.store import mappings
from risk.networks.store import feeds
from risk.policies.store import policies
from risk.reminders.store import reminders
from risk.sessions.store import sessions
from risk.signins.store import failures as sign_in_failures
from risk.signins.store import sign_ins
from risk.sweeps.store import sweeps
from risk.zones.store import zones

__all__ = [
    "aliases",
    "baselines",
    "behaviours",
    "clearances",
    "detections",
    "entities",
    "feedback",
    "feeds",
    "ip_claims",
    "ip_report_windows",
    "labels",
    "level_history",
    "levels",
    "links",
    "mappings",
    "org_values",
    "pins",
    "policies",
    "reassessments",
    "reminders",
    "sessions",
    "sign_in_failures",
    "sign_ins",
    "sweeps",
    "zones",
]
