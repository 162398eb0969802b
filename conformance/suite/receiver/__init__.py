"""The receiver under test: the transmitter we play for it, and the checks it is put to.

Two ways: the receiver's push endpoint alone (`direct.py`), or its whole stream client, which is
pointed at our issuer and driven step by step (`modules.py`).
"""
