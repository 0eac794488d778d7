"""The stream transport."""
