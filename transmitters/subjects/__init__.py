"""Which subjects a stream is about: what receivers add and remove, and what follows from it."""
