"""What serves the local network, alone."""
