"""The user's side of the outside: ssh, the sshtunnel library, adapters, directories."""
