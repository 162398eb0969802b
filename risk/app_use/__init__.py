"""Which apps a user has used, and since when: many new ones at once are a finding."""
