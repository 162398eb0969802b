"""Rules over attributes: CEL over what an AuthZEN question says of subject, action and resource.

    question ─▶ the rules that name its resource type ─▶ deny before permit ─▶ Verdict

The hub decides about sessions; these rules answer questions about other things, and are asked only
about resource types that they name. Comes in: rules of admins. Goes out: verdicts.
"""
