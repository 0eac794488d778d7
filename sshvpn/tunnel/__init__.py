"""A tunnel that runs: its session, and what that is made of. Nothing here knows a transport."""
