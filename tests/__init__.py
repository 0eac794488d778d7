"""All tests, and the laboratory that they share."""
