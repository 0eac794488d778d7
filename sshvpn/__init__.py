"""sshvpn: a VPN-style tunnel manager over plain SSH.

The Python interface is :func:`forward`; everything else is reached by the command line.
Importing this package is cheap: nothing is loaded before it is used. That includes ``typing``:
until the command line runs, Ctrl-C is Python's, which answers it with a traceback.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # which mypy takes for true
if TYPE_CHECKING:
    from sshvpn.api import Forward, forward
    from sshvpn.errors import SshvpnError

__all__ = ["Forward", "SshvpnError", "__version__", "forward"]

_LAZY = {
    "forward": "sshvpn.api",
    "Forward": "sshvpn.api",
    "SshvpnError": "sshvpn.errors",
}


def __getattr__(name: str) -> object:
    """Load a public name at its first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
