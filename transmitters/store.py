"""Tables and named queries of transmitters."""
