"""The options of what the LAN is told: ``--announce`` and ``--portal``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from sshvpn.errors import UsageError
from sshvpn.frozen import dataclass
from sshvpn.model import USUAL_PORT, Direction, ForwardSpec, LanWishes

_PORTAL = "--portal"
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class TypedWishes:
    """What was typed; None: nothing was said."""

    announce: bool | None = None
    portal: int | None = None
    tokens: bool = False

    def over(self, announce: bool, portal: int | None, tokens: bool = False) -> LanWishes:
        """Return what holds beside what a profile says."""
        return LanWishes(
            announce if self.announce is None else self.announce,
            portal if self.portal is None else self.portal,
            self.tokens or tokens,
        )


class PortalCommand(click.Command):
    """A command with ``--portal [PORT]``: the next word is its PORT where it is a number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let no HOST be taken for the port."""
        return super().parse_args(ctx, list(_with_its_port(args)))


def _with_its_port(args: Sequence[str]) -> Sequence[str]:
    words = list(args)
    end = words.index("--") if "--" in words else len(words)
    for place in [n for n in range(end) if words[n] == _PORTAL]:
        follower = words[place + 1] if place + 1 < end else ""
        if not follower.isdecimal():
            words[place] = f"{_PORTAL}={USUAL_PORT}"
    return words


def lan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as ``wishes: TypedWishes``."""

    @click.option(
        "--announce/--no-announce",
        "announce",
        default=None,
        help="Tell the local network, where it is shared with, a name for this by mDNS "
        "(gpu-box.local), and where its services are (default).",
    )
    @click.option(
        _PORTAL,
        "portal",
        metavar="[PORT]",
        help="Serve a page there that shows what is reachable here, with QR codes; on port 7748 "
        "or one of the next, unless said.",
    )
    @functools.wraps(command)
    def with_wishes(
        *args: Any,
        announce: bool | None,
        portal: str | None,
        portal_tokens: bool = False,
        **kwargs: Any,
    ) -> Any:
        wishes = TypedWishes(announce, _port(portal), portal_tokens)
        return command(*args, wishes=wishes, **kwargs)

    return with_wishes


tokens_option = click.option(
    "--portal-tokens",
    is_flag=True,
    help="Let the portal's links have the token, so that whoever on the network sees that page "
    "can run commands as you.",
)
"""For commands that know a token; below ``lan_options``, which takes it."""


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise UsageError(f"--portal {text}: not a port", f"name one from 1 to {_LAST_PORT}")
    return int(text)


def refuse_portal_twice(wishes: LanWishes, specs: Sequence[ForwardSpec]) -> None:
    """Raise UsageError where a SPEC would listen on the portal's port."""
    for spec in specs:
        if wishes.portal and spec.listen == wishes.portal and spec.direction != Direction.REMOTE:
            raise UsageError(
                f"--portal {wishes.portal} and {spec.text} would listen at the same place",
                "give one of them another port",
            )


def refuse_portal_alone(wishes: TypedWishes, *, is_shared: bool) -> None:
    """Raise UsageError for a page that nobody could see."""
    if wishes.portal is not None and not is_shared:
        raise UsageError(
            "--portal is for the local network, which this is not shared with", "say --lan, too"
        )


def refuse_tokens_alone(wishes: LanWishes) -> None:
    """Raise UsageError for tokens on a page that there is not."""
    if wishes.tokens and wishes.portal is None:
        raise UsageError("--portal-tokens without --portal", "say --portal, too")
