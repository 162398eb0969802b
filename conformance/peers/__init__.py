"""The other parties, simulated: a security vendor, an identity provider and applications.

Each peer is a small program of its own that speaks the real protocols over HTTP on loopback. The
demo, the fault tests and the benchmarks start them as processes and judge the hub by what the
peers saw: every peer keeps an append-only ledger of what reached it.

::

    vendor --SET (RFC 8935)--> hub --SCIM, GTR--> idp
                                   --GTR | back-channel logout | SSF push | SSF poll--> app
                                   --signed webhook--> app --mode webhook

What comes in: HTTP. What goes out: HTTP, one JSON line with the peer's URLs on standard output,
and the ledger. The peers import `ssf` and nothing else of ours. See README.md in this folder.
"""
