"""The registry of providers: who may send us SETs, with which keys, and what their word is worth.

Comes in: decisions of admins, by API or command line. Goes out: stored providers, and profiles
that intake reads from memory; every change moves the configuration version "providers", so that
all processes reload them::

    service.add_provider --> settings.check_settings --> store.add_provider --> feed.bump
    service.load_profiles <-- ConfigCache <-- version moved
"""
