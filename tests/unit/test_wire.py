"""A profile is the same on the other side of the wire."""

from __future__ import annotations

import json

from hypothesis import given, strategies as st

from sshvpn.model import Destination, Direction, EngineName, ForwardProfile, SshOptions
from sshvpn.wire import parse_spec, profile_from_json, profile_to_json

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
profiles = st.builds(
    ForwardProfile,
    name=words,
    host=words,
    destination=st.builds(
        Destination,
        host=words,
        user=st.none() | words,
        port=st.none() | st.integers(1, 65535),
    ),
    specs=st.lists(specs, max_size=4).map(tuple),
    binds=st.lists(words, max_size=2).map(tuple),
    lan=st.booleans(),
    lan_trusts=st.booleans(),
    engine=st.sampled_from(EngineName),
    ssh=st.builds(
        SshOptions,
        config_file=st.none() | words,
        identity_files=st.lists(words, max_size=2).map(tuple),
        jump=st.none() | words,
        options=st.lists(st.tuples(words, words), max_size=2).map(tuple),
    ),
    named=st.booleans(),
    timeout_s=st.none() | st.floats(0.1, 1e6),
)


@given(profiles)
def test_a_profile_crosses_unchanged(profile: ForwardProfile) -> None:
    line = json.dumps(profile_to_json(profile))
    assert "\n" not in line
    assert profile_from_json(json.loads(line)) == profile
