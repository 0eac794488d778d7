"""Long runs by hand, of what the unit tests run for a moment."""
