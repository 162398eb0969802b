"""What the world knows of IP addresses: feeds in, one memory-mapped table out.

Owns the feeds of IP metadata an operator gives the hub, and the table that is made of them. Comes
in: files of MMDB, CSV, JSON lines or plain prefixes. Goes out: an `IPRecord` per address, within
microseconds, which says who claims what and since when::

    readers.read_feed(file)          (own process)  rows of any shape -> ranges and `Said`
      flatten                        (pure)         the narrowest range wins within one feed
      artefact.write                                one table per feed: sources/<name>.ipt
    compiler.merge(tables)           (own process)  all feeds, cut into ranges that do not overlap
      artefact.write                                the table of the hub: ip-table.ipt, by rename
    service.Networks.follow          (every process) maps the new table, off the loop, and swaps it
      lookup(ip)                     (memory)       bisect -> what each feed says -> `merge`

Nothing of an event loop ever waits for a feed or for a new table.
"""

from __future__ import annotations
