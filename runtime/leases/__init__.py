"""Who works off which bucket of which kind of work, and until when."""
