"""The parts of the helper that need no root."""
