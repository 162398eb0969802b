"""The conformance suite: `signalhub conformance transmitter|receiver URL …`.

It speaks the standards' protocols and nothing else, so it can be pointed at any implementation of
the Shared Signals Framework.

::

    options ─▶ Transmitter / Receiver (the party under test, as we see it)
                   │ each check asks it something and tells a Verdict what it saw
                   ▼
    findings by requirement id ─▶ table, JSON, JUnit ─▶ exit code

`checks.py` says what a check and a finding are, `transmitter/` and `receiver/` hold the checks.
"""
