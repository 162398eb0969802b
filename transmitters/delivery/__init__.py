"""Delivery of queued SETs, by push and by poll: the queries that run all day."""
