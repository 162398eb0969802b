"""What others say of IP addresses: the risk events API, and what follows for a sign-in.

POST /api/v1/risk/events/ip ─▶ model.parse_events ─▶ REPORT_IPS (durable) ─▶ change feed
                                                                                 │
sign-in with `ip` ─▶ memory.IPClaims ◀───────────────────────────────────────────┘
                        └▶ model.judge_ip (pure) ─▶ level, reasons, what counts
"""
