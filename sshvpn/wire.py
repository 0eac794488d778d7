"""A profile as JSON: how the command line hands it to the process it starts.

``kind`` tells a forward's from a tunnel's. SPECs travel as they were typed and are parsed
again, so that there is one parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from sshvpn.model import (
    Destination,
    Direction,
    EngineName,
    ForwardProfile,
    ForwardSpec,
    JupyterWay,
    LanWishes,
    NotebookWish,
    SshOptions,
    TcpEndpoint,
    Transport,
    Tuning,
    TunnelProfile,
)
from sshvpn.spec import parse_dynamic, parse_forward, parse_publish

_FORWARD = "forward"
_TUNNEL = "tunnel"


def profile_to_json(profile: ForwardProfile | TunnelProfile) -> dict[str, Any]:
    """Return ``profile`` as plain data."""
    plain = asdict(profile)
    if isinstance(profile, TunnelProfile):
        publish = [spec.text for spec in profile.publish]
        plain |= {
            "publish": publish,
            "transport": profile.transport.value,
            "tuning": profile.tuning.value,
        }
        return {"kind": _TUNNEL, **plain}
    specs = [[spec.direction.value, spec.text] for spec in profile.specs]
    if profile.notebook is not None:
        plain["notebook"]["way"] = profile.notebook.way.value
    words = {"specs": specs, "engine": profile.engine.value, "tuning": profile.tuning.value}
    return {"kind": _FORWARD, **plain, **words}


def profile_from_json(plain: Mapping[str, Any]) -> ForwardProfile | TunnelProfile:
    """Return the profile that :func:`profile_to_json` made ``plain`` of."""
    fields = {key: value for key, value in plain.items() if key != "kind"}
    fields["destination"] = Destination(**fields["destination"])
    fields["ssh"] = _ssh(fields["ssh"])
    fields["metrics"] = None if fields["metrics"] is None else TcpEndpoint(**fields["metrics"])
    fields["tuning"] = Tuning(fields["tuning"])
    fields["wishes"] = LanWishes(**fields["wishes"])
    if plain["kind"] == _TUNNEL:
        return TunnelProfile(**{**fields, **_of_tunnel(fields)})
    return ForwardProfile(**{**fields, **_of_forward(fields)})


def checked_profile(plain: Mapping[str, Any]) -> ForwardProfile | TunnelProfile:
    """Return the same of what somebody else may have made. Raises TypeError, ValueError, KeyError.

    Each value is of the type that the profile says.
    """
    if plain["kind"] not in (_FORWARD, _TUNNEL):
        raise ValueError("neither a forward nor a tunnel")
    profile = profile_from_json(plain)
    if not _fits(profile, type(profile)):
        raise TypeError("a value of another type than the profile has there")
    return profile


def _fits(value: object, hint: Any) -> bool:
    """Whether ``value`` is what the type ``hint`` says: not an int where it says bool."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is tuple and isinstance(value, tuple):
        each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(each) == len(value) and all(map(_fits, value, each))
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, hint):
        return all(_fits(getattr(value, key), of) for key, of in get_type_hints(hint).items())
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint


def _of_forward(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "specs": tuple(parse_spec(Direction(way), text) for way, text in plain["specs"]),
        "binds": tuple(plain["binds"]),
        "engine": EngineName(plain["engine"]),
        "notebook": plain["notebook"] and _notebook(plain["notebook"]),
    }


def _notebook(plain: Mapping[str, Any]) -> NotebookWish:
    words = tuple(plain["words"])
    return NotebookWish(**{**plain, "way": JupyterWay(plain["way"]), "words": words})


def _of_tunnel(plain: Mapping[str, Any]) -> dict[str, Any]:
    lists = ("routes", "exclude", "lan_interfaces")
    return {
        **{key: tuple(plain[key]) for key in lists},
        "publish": tuple(parse_publish(text) for text in plain["publish"]),
        "transport": Transport(plain["transport"]),
    }


def _ssh(plain: Mapping[str, Any]) -> SshOptions:
    return SshOptions(
        config_file=plain["config_file"],
        identity_files=tuple(plain["identity_files"]),
        jump=plain["jump"],
        options=tuple((key, value) for key, value in plain["options"]),
    )


def parse_spec(direction: Direction, text: str) -> ForwardSpec:
    """Return what ``text`` means as an argument of the switch for ``direction``."""
    if direction is Direction.DYNAMIC:
        return parse_dynamic(text)
    return parse_forward(text, direction)
