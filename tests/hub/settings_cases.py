"""Reads cases from standard input and loads the settings of each, in this process.

One JSON array in, one out. A case: `environment`, `file` (text of signalhub.toml) and `given` (what
the command line says). An answer: the settings that were asked for in `wanted`, or `error`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from hub.settings import SettingsError, load_settings


def answer(case: dict[str, Any]) -> dict[str, Any]:
    for name in [name for name in os.environ if name.upper().startswith("SIGNALHUB_")]:
        del os.environ[name]
    os.environ.update(case.get("environment", {}))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if "file" in case:
            Path("signalhub.toml").write_text(case["file"], encoding="latin-1")
        try:
            settings = load_settings(**case.get("given", {}))
        except SettingsError as error:
            return {"error": str(error)}
        finally:
            os.chdir("/")
    return {name: plain(getattr(settings, name)) for name in type(settings).model_fields}


def plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)


if __name__ == "__main__":
    json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
