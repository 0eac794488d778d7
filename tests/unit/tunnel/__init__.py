"""Plans, asserted as the commands that they are."""
