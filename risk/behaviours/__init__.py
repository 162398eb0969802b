"""Behaviours: questions about a sign-in or a change of context, answered from the baseline.

Baseline, Occurrence, settings of the tenant ─▶ evaluation.behaviours (pure) ─▶ name to value

Values are POSITIVE (it is new), NEGATIVE (it is known), UNKNOWN (too little is known to say) and
BAD_REQUEST (the request does not say where or what). docs/behaviours.md has the table of cases.
"""
