"""Every hot write of the hub, by name: what the core process executes for the others."""

from __future__ import annotations

from typing import Any

import actions
import receivers
import risk
import runtime.queue
import transmitters
from runtime.writer import Operation


def all_operations() -> tuple[Operation[Any, Any], ...]:
    """Return the operations of all packages."""
    return (
        *runtime.queue.OPERATIONS,
        *receivers.OPERATIONS,
        *risk.OPERATIONS,
        *actions.OPERATIONS,
        *transmitters.OPERATIONS,
    )
