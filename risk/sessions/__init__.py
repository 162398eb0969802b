"""The index of sessions that apps and identity providers own.

Key: (tenant, issuer, sid). Comes in: `PUT /v1/sessions/{sid}`, session events of providers. Goes
out: which users had a session on which device, and when; a listing. A session of a user or on a
device that is under suspicion causes a reassessment of the user.
"""
