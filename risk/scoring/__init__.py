"""The scorer's seat: how unlike the person is what we see, and why.

context change, sign-in ─▶ Features ─▶ Scorer ─▶ Score: value, level, contributions, reasons

Whoever sits there is chosen by the setting `scorer`; `rules` is a transparent table. A scorer is a
pure function of the features: no clock, no database, no network.
"""
