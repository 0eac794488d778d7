"""Tests of what is spoken with the server's agent."""
