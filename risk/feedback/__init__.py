"""What people say of findings: confirmed, false, of no concern; and taken back."""
