"""Decisions about sign-ins: `evaluator` puts the parts together, `http` is the front door."""
