"""AES instructions are told from what /proc/cpuinfo says on x86 and ARM."""

import pytest

from sshvpn.system.cpu import names_aes


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu vme aes avx\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd aes pmull\n", True),
        ("processor\t: 0\nflags\t\t: fpu vaes vme\nbugs\t: aes\n", False),
        ("", False),
    ],
)
def test_aes_is_found_by_its_whole_name(cpuinfo: str, *, expected: bool) -> None:
    assert names_aes(cpuinfo) is expected
