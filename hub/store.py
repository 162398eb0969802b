"""Tables and named queries of hub."""
