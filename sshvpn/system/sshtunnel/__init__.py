"""The sshtunnel engine: the library and paramiko, mended, in this process."""
