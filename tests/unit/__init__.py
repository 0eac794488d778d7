"""Unit tests: without root, in seconds."""
