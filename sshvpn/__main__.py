"""``sshvpn`` and ``python -m sshvpn``: start the command line, end with its exit code."""

import os
import sys

INTERRUPTED = 130
_OTHERS = 0o077


def main() -> None:
    """Run the command line. Ctrl-C while modules still load is exit 130, without a traceback.

    Before Python 3.12 one that comes while a class is made (``__set_name__``) is a RuntimeError.
    """
    try:
        _open_standard_descriptors()
        os.umask(os.umask(_OTHERS) & _OTHERS)  # what we make is ours to enter and read
        from sshvpn.cli import early

        early.begin(sys.argv[1:])
        from sshvpn.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except RuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = INTERRUPTED
    import gc

    gc.freeze()  # who ends looks for no garbage: 10 ms
    sys.exit(code)


def _open_standard_descriptors() -> None:
    """Open what of 0, 1 and 2 was closed (``>&-``), or a socket of ours would take its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 (stderr)
        os.set_inheritable(descriptor, True)  # noqa: FBT003 (its only form)
    os.close(descriptor)


if __name__ == "__main__":
    main()
