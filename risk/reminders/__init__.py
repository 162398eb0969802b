"""HIGH never ages, but it nags: people are reminded after 24 and after 72 hours."""
