"""What the machines of the local network see, and which networks are trusted."""
