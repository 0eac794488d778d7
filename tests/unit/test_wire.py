"""A profile is the same on the other side of the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sshvpn.errors import SshvpnError
from sshvpn.model import (
    Destination,
    Direction,
    EngineName,
    ForwardProfile,
    JupyterWay,
    NotebookWish,
    SshOptions,
    Transport,
    TunnelProfile,
)
from sshvpn.spec import parse_publish
from sshvpn.wire import checked_profile, parse_spec, profile_from_json, profile_to_json

words = st.text(min_size=1, max_size=12)
specs = st.sampled_from(
    [
        (Direction.LOCAL, "9999:8888"),
        (Direction.LOCAL, "[::1]:0:db:5432"),
        (Direction.LOCAL, "/run/a.sock:/run/b.sock"),
        (Direction.REMOTE, "*:80:localhost:8080"),
        (Direction.DYNAMIC, "127.0.0.1:1080"),
    ]
).map(lambda pair: parse_spec(*pair))
destinations = st.builds(
    Destination,
    host=words,
    user=st.none() | words,
    port=st.none() | st.integers(1, 65535),
)
ssh_options = st.builds(
    SshOptions,
    config_file=st.none() | words,
    identity_files=st.lists(words, max_size=2).map(tuple),
    jump=st.none() | words,
    options=st.lists(st.tuples(words, words), max_size=2).map(tuple),
)
several_words = st.lists(words, max_size=2).map(tuple)
timeouts = st.none() | st.floats(0.1, 1e6)
forwards = st.builds(
    ForwardProfile,
    name=words,
    host=words,
    destination=destinations,
    specs=st.lists(specs, max_size=4).map(tuple),
    binds=several_words,
    lan=st.booleans(),
    lan_trusts=st.booleans(),
    engine=st.sampled_from(EngineName),
    ssh=ssh_options,
    named=st.booleans(),
    timeout_s=timeouts,
    notebook=st.none()
    | st.builds(
        NotebookWish,
        directory=st.just("") | words,
        way=st.sampled_from(JupyterWay),
        words=several_words,
        has_port=st.booleans(),
    ),
)
published = st.sampled_from(["8888", "9999:db.internal:5432", "db:5432", "*:80:8080"])
tunnels = st.builds(
    TunnelProfile,
    name=words,
    host=words,
    destination=destinations,
    routes=several_words,
    exclude=several_words,
    lan=st.none() | st.booleans(),
    lan_trusts=st.booleans(),
    lan_interfaces=several_words,
    lan_address=st.none() | words,
    publish=st.lists(published.map(parse_publish), max_size=3).map(tuple),
    nat=st.booleans(),
    transport=st.sampled_from(Transport),
    streams=st.none() | st.integers(1, 64),
    mtu=st.none() | st.integers(576, 16380),
    address=st.none() | words,
    remote_device=st.none() | words,
    ssh=ssh_options,
    timeout_s=timeouts,
)


@given(forwards | tunnels)
def test_a_profile_crosses_unchanged(profile: ForwardProfile | TunnelProfile) -> None:
    line = json.dumps(profile_to_json(profile))
    assert "\n" not in line
    assert profile_from_json(json.loads(line)) == profile
    assert checked_profile(json.loads(line)) == profile


def places(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each value that holds no other."""
    if isinstance(plain, dict | list):
        pairs = plain.items() if isinstance(plain, dict) else enumerate(plain)
        for key, value in pairs:
            yield from places(value, (*path, key))
    else:
        yield path


@given(forwards | tunnels, st.data())
def test_a_value_of_another_type_is_no_profile(
    profile: ForwardProfile | TunnelProfile, data: st.DataObject
) -> None:
    plain = json.loads(json.dumps(profile_to_json(profile)))
    path = data.draw(st.sampled_from(list(places(plain))))
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = {"x": [inner[path[-1]]]}
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError, SshvpnError)):
        checked_profile(plain)
