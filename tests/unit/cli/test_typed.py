"""The words of a command line survive being kept with the session that they started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sshvpn.cli.forward_request import ForwardWords, build_profile
from sshvpn.cli.tunnel_request import TunnelWords, build_profiles
from sshvpn.cli.typed import keep, words_of
from sshvpn.model import EngineName, SshOptions, Transport

pytestmark = pytest.mark.usefixtures("home")

SSH = SshOptions("/etc/c", ("~/.ssh/k",), "jump", (("ConnectTimeout", "5"), ("User", "bob")))
FORWARD = ForwardWords(
    words=("gpu", "9999:8888"), local=("1:2",), remote=("3:4",), dynamic=("1080",), host=None,
    name="x", binds=("eth0",), lan=None, engine=EngineName.OPENSSH, timeout_s=4.0,
    default_timeout_s=30.0, ssh=SSH, metrics="127.0.0.1:9000",
)  # fmt: skip
TUNNEL = TunnelWords(
    ("gpu",), routes=("10.20.0.0/16",), lan=True, publish=("8888",), transport=Transport.W,
    mtu=1400, timeout_s=3.0, ssh=SSH,
)  # fmt: skip


@pytest.mark.parametrize("words", [FORWARD, TUNNEL])
def test_words_are_what_they_were(words: ForwardWords | TunnelWords) -> None:
    assert words_of(type(words), keep(words)) == words


def test_a_profile_is_made_again_of_its_words() -> None:
    for profile in build_profiles(replace(TUNNEL, hosts=("gpu", "two"), routes=(), publish=())):
        assert profile.typed is not None
        assert build_profiles(words_of(TunnelWords, profile.typed)) == (profile,)
    forward = build_profile(FORWARD)
    assert forward.typed is not None
    assert build_profile(words_of(ForwardWords, forward.typed)) == forward


def test_a_default_host_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSHVPN_HOST", "gpu")
    (profile,) = build_profiles(TunnelWords(()))
    forward = build_profile(replace(FORWARD, words=("8888",)))
    monkeypatch.setenv("SSHVPN_HOST", "other")
    assert profile.typed is not None
    assert forward.typed is not None
    assert build_profiles(words_of(TunnelWords, profile.typed)) == (profile,)
    assert build_profile(words_of(ForwardWords, forward.typed)) == forward
