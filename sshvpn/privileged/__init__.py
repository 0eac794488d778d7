"""The helper that runs as root: takes typed steps over a socket, and knows nothing else."""
