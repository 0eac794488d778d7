"""What a tunnel looks at before it runs for the first time."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sshvpn.boundary import Prober
from sshvpn.errors import TakenError, UsageError
from sshvpn.model import InterfaceAddress
from sshvpn.sharing import LanSharing
from sshvpn.tunnel.first_look import first_look
from sshvpn.tunnel.lan_address import LanAddress
from tests.unit.test_ends import profile


class Lan:
    """A LAN in which nobody has any address that is asked about."""

    asked = 0

    def addresses(self) -> list[InterfaceAddress]:
        return [InterfaceAddress("lan0", "192.168.77.1", 24, 2)]

    def look(self) -> None:
        """Nothing is to be seen."""

    async def holder_of(self, _interface: str, _address: str, _quiet: asyncio.Event) -> str | None:
        self.asked += 1
        return None


def look(address: str) -> int:
    """Return how often the LAN was asked who has ``address``."""
    lan = Lan()

    async def story() -> None:
        sharing, remote = cast("LanSharing", lan), LanAddress(cast("Prober", lan))
        await first_look(profile(lan_address=address), sharing, remote, waits=False)

    asyncio.run(story())
    return lan.asked


def test_a_free_address_is_asked_about_and_taken() -> None:
    assert look("192.168.77.50") == 1


@pytest.mark.parametrize("address", ["192.168.77.0", "192.168.77.255"])
def test_what_no_machine_can_have_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=rf"--lan-address {address} is the .*192\.168\.77\.0/24"):
        look(address)


@pytest.mark.parametrize("lan", [False, True])
def test_an_address_that_is_wanted_no_more_is_told_of_no_more(lan: bool) -> None:
    """It had been given up; then it was taken out of the profile, and that restarted."""

    async def story() -> None:
        office = Lan()
        sharing, remote = cast("LanSharing", office), LanAddress(cast("Prober", office))
        remote.lost = TakenError("192.168.77.50 is in use on lan0")
        wanted = profile(lan=lan, lan_address=None)
        await first_look(wanted, sharing, remote, waits=False)
        assert remote.lost is None

    asyncio.run(story())
