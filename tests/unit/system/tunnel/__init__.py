"""Unit tests of the ways to carry packets."""
