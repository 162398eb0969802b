"""Sign-ins: what is asked before and after the credential check, and what is kept of it.

POST /v1/sign-ins/evaluate ─▶ model.parse_question ─▶ hub.sign_ins (score, policies) ─▶ answer
                                                          │
                        sign_ins (store): HIGH and what is no ALLOW before the answer, the rest soon
"""
