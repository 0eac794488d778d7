"""This machine's network without privilege: adapters, neighbours, sockets, the way out."""
