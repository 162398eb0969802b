"""Tables and named queries of runtime."""
