"""Root's power, as the user's side has it: sudo, the helper, this machine's end of a tunnel."""
