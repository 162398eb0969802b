"""The durable steps of containments: where they wait, in which order, and what became of them."""
