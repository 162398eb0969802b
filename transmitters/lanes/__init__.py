"""The queue of a stream, lane by lane."""
