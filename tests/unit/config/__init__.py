"""The configuration, alone."""
