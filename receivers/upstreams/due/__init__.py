"""Search of upstreams with something to do, for the delivery process. Owns no table."""
