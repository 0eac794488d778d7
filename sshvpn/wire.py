"""A forward's profile as JSON: how the command line hands it to the process it starts.

The SPECs travel as they were typed and are parsed again, so that there is one parser.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sshvpn.model import (
    Destination,
    Direction,
    EngineName,
    ForwardProfile,
    ForwardSpec,
    SshOptions,
)
from sshvpn.spec import parse_dynamic, parse_forward


def profile_to_json(profile: ForwardProfile) -> dict[str, Any]:
    """Return ``profile`` as plain data."""
    plain = asdict(profile)
    plain["specs"] = [[spec.direction.value, spec.text] for spec in profile.specs]
    plain["engine"] = profile.engine.value
    return plain


def profile_from_json(plain: dict[str, Any]) -> ForwardProfile:
    """Return the profile that :func:`profile_to_json` made ``plain`` of."""
    ssh = plain["ssh"]
    return ForwardProfile(
        **{
            **plain,
            "destination": Destination(**plain["destination"]),
            "specs": tuple(parse_spec(Direction(way), text) for way, text in plain["specs"]),
            "binds": tuple(plain["binds"]),
            "engine": EngineName(plain["engine"]),
            "ssh": SshOptions(
                **{
                    **ssh,
                    "identity_files": tuple(ssh["identity_files"]),
                    "options": tuple((key, value) for key, value in ssh["options"]),
                }
            ),
        }
    )


def parse_spec(direction: Direction, text: str) -> ForwardSpec:
    """Return what ``text`` means as an argument of the switch for ``direction``."""
    if direction is Direction.DYNAMIC:
        return parse_dynamic(text)
    return parse_forward(text, direction)
