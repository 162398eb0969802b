"""The declared tables: those of every package's `store.py`, whoever imported them or did not."""

from __future__ import annotations

import importlib
import pkgutil

import actions
import hub
import receivers
import risk
import runtime
import transmitters
from runtime.database import metadata

__all__ = ["metadata"]

for package in (actions, hub, receivers, risk, runtime, transmitters):
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if found.name.endswith(".store"):
            # Each declares its tables on the shared metadata.
            importlib.import_module(found.name)
