"""What is due for push."""
