"""Logouts of sessions that the blast-radius guard held back, until a person decides.

too many users in ten minutes ─▶ held ─▶ approved: carried out now │ refused: never
"""
