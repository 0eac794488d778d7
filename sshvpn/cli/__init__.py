"""The command line: one file a command, lazily loaded by :mod:`sshvpn.cli.main`."""
