"""What the session of a tunnel is given: which tunnel it is, and the outside."""

from __future__ import annotations

from sshvpn.boundary import Interfaces, LocalEnd, Prober, TunnelCarrier
from sshvpn.frozen import dataclass
from sshvpn.sharing import LanSharing


@dataclass(frozen=True, slots=True)
class Identity:
    """Which tunnel it is: ``label`` in this kernel, ``remote_label`` in the server's.

    ``owner`` is the user whose ssh opens the device.
    """

    label: str
    remote_label: str
    owner: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session needs of the outside."""

    local: LocalEnd
    carrier: TunnelCarrier
    interfaces: Interfaces
    sharing: LanSharing
    prober: Prober
