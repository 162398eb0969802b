"""What was found about users and devices, and what was remedied: the stored record of both."""
