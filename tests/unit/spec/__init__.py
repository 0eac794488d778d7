"""The parsers of words, alone."""
