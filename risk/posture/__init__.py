"""What providers say of the posture of devices, between the requests of their sessions."""
