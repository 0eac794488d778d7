"""What the process that strangers speak to says is believed no further than its form."""

from __future__ import annotations

import json

import pytest

from sshvpn.model import TcpEndpoint
from sshvpn.system.lan_process import _names, _portal, _understood


def test_what_is_well_formed_is_understood() -> None:
    said = _understood('{"names": ["gpu-box.local"], "portal": [["fd77::1", 7748]]}')
    assert said is not None
    assert _names(said) == ("gpu-box.local",)
    assert _portal(said) == (TcpEndpoint("fd77::1", 7748),)


@pytest.mark.parametrize("line", ["", "x", "[]", '"x"', "[" * 100_000])
def test_what_is_no_object_is_nothing(line: str) -> None:
    assert _understood(line) is None


@pytest.mark.parametrize(
    "names", [None, 1, "x.local", [1], ["\x1b[2J.local"], ["x"], ["x.local\n"], ["-.local"]]
)
def test_what_is_no_name_is_left_out(names: object) -> None:
    assert _names({"names": names}) == ()


@pytest.mark.parametrize(
    "portal", [None, 1, [1], [["x", 1]], [["1.2.3.4"]], [["1.2.3.4", "x"]], [["1.2.3.4", None]]]
)
def test_what_is_no_place_is_left_out(portal: object) -> None:
    assert _portal({"portal": json.loads(json.dumps(portal))}) == ()
