"""What was published: the events themselves, apart from their deliveries."""
