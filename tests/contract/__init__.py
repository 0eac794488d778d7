"""One suite over each real thing and what stands in for it."""
