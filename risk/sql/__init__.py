"""What the stores of risk share."""
