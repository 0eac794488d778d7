"""The laboratory that all e2e tests and the demo share: a small office in network namespaces.

             192.168.77.0/24             203.0.113.0/24              10.20.0.0/24
             fd77::/64                   2001:db8:113::/64           fd20::/64
    ┌─────┐ eth0    lan0 ┌─────────┐ wan0            wan0 ┌────────┐ inner0  eth0 ┌───────┐
    │ lan ├──────────────┤ gateway ├──[ emulator ]──┬─────┤ server ├──────────────┤ inner │
    └─────┘ .10       .1 └────┬────┘ .10            │ .20 └────────┘ .1       .10 └───────┘
    ┌──────┐ eth0   .1 ┌──────┘                     │
    │ lan2 ├───────────┘ lan1                       ├── jump .30     (built when used; `add_server`)
    └──────┘ .10   192.168.78.0/24, fd78::/64       └── internet .1, the default route;
    (built when used)                                   "world" is 198.51.100.1 there

`Lab(home=True)`: the LAN and the server are behind the same adapter of the gateway.

    ┌─────┐ eth0          lan0 ┌─────────┐          ┌────────┐ wan0
    │ lan ├─────────┬──────────┤ gateway │          │ router ├──[ emulator ]── internet, server …
    └─────┘ .10     │       .1 └─────────┘          └───┬────┘ .10
                    └───────────────────────────────────┘ .254, the default route of both

IPv6 addresses end in the same number (fd77::10). Every machine knows the others by name. lan and
lan2 have the gateway as their default route, inner has the server, and nobody forwards but the
home's router, which translates the LAN's addresses to its own. A machine's firewall, of the kinds
that people have, is in `firewalls.py`. alice
(password `ALICE_PASSWORD`, sudo with it) has an account everywhere; on the gateway her encrypted
key is in a running agent, and the server lets it in.

    with Lab() as lab:
        lab.server.http_server(8080)
        lab.sshvpn("forward", "-b", "--bind", "lan0", "server", "9999:8080")
        lab.lan.run(["curl", "http://192.168.77.1:9999/"])
        lab.check()   # nothing is left behind

Machines are namespaces that have no name anywhere, so laboratories do not see each other, and
they end with the process that made them, even when it is killed.
"""

from tests.lab.contents import ALICE_PASSWORD
from tests.lab.lab import AGENT_SOCKET, Lab
from tests.lab.labmachine import LabMachine, Service, alices_key
from tests.lab.machine import Machine
from tests.lab.process import Child, CommandError, LabError, wait_until
from tests.lab.sshd import PASSPHRASE, KeyPair, Sshd, key_pair
from tests.lab.terminal import Terminal
from tests.lab.topology import WORLD, WORLD6
from tests.lab.wan import Wan

__all__ = [
    "AGENT_SOCKET",
    "ALICE_PASSWORD",
    "PASSPHRASE",
    "WORLD",
    "WORLD6",
    "Child",
    "CommandError",
    "KeyPair",
    "Lab",
    "LabError",
    "LabMachine",
    "Machine",
    "Service",
    "Sshd",
    "Terminal",
    "Wan",
    "alices_key",
    "key_pair",
    "wait_until",
]
