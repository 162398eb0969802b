"""The spine: the only place that knows the order of the parts.

    received ─▶ assessed ─▶ planned ─▶ performed / published

Everything here runs inside one write transaction per batch and does no outbound HTTP. A crash
between any two steps leaves the signals `received`, and the next run takes them up again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncConnection
