"""The user's side of the outside, alone."""
