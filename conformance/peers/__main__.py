"""`python -m conformance.peers vendor|idp|app [flags]`: start one peer."""

import sys

from conformance.peers.start import main

ROLE_POSITION = 1

if __name__ == "__main__":
    if len(sys.argv) <= ROLE_POSITION:
        raise SystemExit("usage: python -m conformance.peers vendor|idp|app [flags]")
    main(sys.argv[ROLE_POSITION], sys.argv[ROLE_POSITION + 1 :])
