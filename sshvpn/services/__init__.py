"""Services of systemd, as text: what `enable` writes, for which kind of session. Pure.

kinds.py     which kinds there are: by which manager each is run, and its command
sandbox.py   what a service may do, directive by directive, with the reasons
units.py     the template unit, and what one service adds to it
keys.py      the options of authorized_keys(5) that limit a key to one service
"""

from sshvpn.services.keys import limits
from sshvpn.services.kinds import KINDS, TUNNEL, Kind, is_service_name
from sshvpn.services.units import Account, drop_in, reading, template, trial, without_namespaces

__all__ = [
    "KINDS",
    "TUNNEL",
    "Account",
    "Kind",
    "drop_in",
    "is_service_name",
    "limits",
    "reading",
    "template",
    "trial",
    "without_namespaces",
]
