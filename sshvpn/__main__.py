"""``sshvpn`` and ``python -m sshvpn``: start the command line, end with its exit code."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C while modules still load is exit 130, without a traceback."""
    try:
        from sshvpn.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
