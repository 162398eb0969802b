"""Whom containments reach: the apps users are logged out of, and the webhooks that are told.

An identity provider is an app of kind `idp`. Secrets (SCIM tokens, webhook keys) come in, are
sealed at once and never leave again, except to the call that uses them.
"""
