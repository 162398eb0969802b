"""The command line that the benchmarks of delivery share: sizes in, a table out, a result kept."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from benchmarks.machine import write_result
from benchmarks.serving import end_cleanly_when_terminated

SizesT = TypeVar("SizesT", bound=msgspec.Struct)
SizesT_contra = TypeVar("SizesT_contra", bound=msgspec.Struct, contravariant=True)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)
ResultT_co = TypeVar("ResultT_co", bound=msgspec.Struct, covariant=True)


class Measure(Protocol[SizesT_contra, ResultT_co]):
    """Measures once; every file lies in `folder`. command: as it was typed, for the result."""

    def __call__(self, sizes: SizesT_contra, folder: Path, *, command: str) -> ResultT_co:
        """Return what was measured."""
        ...


def run(
    module: str,
    parser: argparse.ArgumentParser,
    sizes: type[SizesT],
    measure: Measure[SizesT, ResultT],
    *,
    report: Callable[[ResultT], str],
    name: Callable[[ResultT], str],
) -> ResultT:
    """Read the sizes from the command line, measure, print, and keep the result if asked to.

    module: as in `python -m`. name: of the result's file.
    """
    parser.add_argument("--folder", type=Path, help="where databases go; a new one by default")
    parser.add_argument("--keep-result", action="store_true", help="write benchmarks/results/")
    options = vars(parser.parse_args())
    end_cleanly_when_terminated()
    folder, keep = options.pop("folder"), options.pop("keep_result")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        result = measure(
            msgspec.convert(options, sizes),
            Path(made),
            command=shlex.join(["python", "-m", module, *sys.argv[1:]]),
        )
    print(report(result))
    if keep:
        print(f"written to {write_result(name(result), result)}")
    return result
