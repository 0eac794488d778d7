"""The openssh engine: the system's own ssh as a child, its words, its orders, its errors."""
