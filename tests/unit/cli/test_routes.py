"""What ``routes`` prints, of a tunnel that is up."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from sshvpn.cli.routes import routes
from sshvpn.client_routes import System
from tests.unit.cli.conftest import Begin
from tests.unit.cli.records import tunnel


@pytest.mark.parametrize("system", [system.value for system in System])
def test_an_address_of_the_lan_needs_no_route_there(begin: Begin, system: str) -> None:
    """This machine answers ARP for it: ``--lan-address``."""
    begin("tunnel", "office", tunnel(routes=["10.20.0.0/16", "192.168.1.77/32"]))
    told = CliRunner().invoke(routes, ["office", "--format", system]).output
    assert "10.20.0.0" in told
    assert "100.64.0.2" in told
    assert "192.168.1.77" not in told
