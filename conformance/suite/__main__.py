"""`python -m conformance.suite`: the suite without the rest of the hub's commands."""

import sys

from conformance.suite.command import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
