"""Tables and named queries of actions."""
