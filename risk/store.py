"""Tables and named queries of risk."""
