"""Tables and named queries of receivers."""
