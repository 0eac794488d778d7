"""--portal takes a number and nothing else for its port; what does not go together is told."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from sshvpn.cli.lan_options import (
    PortalCommand,
    TypedWishes,
    lan_options,
    refuse_portal_alone,
    refuse_portal_twice,
    refuse_tokens_alone,
)
from sshvpn.errors import UsageError
from sshvpn.model import USUAL_PORT, Direction, LanWishes
from sshvpn.spec import parse_forward


@click.command(cls=PortalCommand)
@click.argument("hosts", nargs=-1)
@lan_options
def command(hosts: tuple[str, ...], wishes: TypedWishes) -> None:
    """Print what was understood."""
    click.echo(f"{hosts} {wishes.announce} {wishes.portal}")


def understood(*words: str) -> str:
    return CliRunner().invoke(command, words, catch_exceptions=False).stdout.strip()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gpu"], "('gpu',) None None"),
        (["gpu", "--portal"], f"('gpu',) None {USUAL_PORT}"),
        (["--portal", "gpu"], f"('gpu',) None {USUAL_PORT}"),
        (["--portal", "8080", "gpu"], "('gpu',) None 8080"),
        (["--portal=8080", "gpu"], "('gpu',) None 8080"),
        (["--portal", "--no-announce", "gpu"], f"('gpu',) False {USUAL_PORT}"),
        (["--announce", "--", "--portal"], "('--portal',) True None"),
    ],
)
def test_the_port_is_a_number(words: list[str], told: str) -> None:
    assert understood(*words) == told


@pytest.mark.parametrize("word", ["65536", "x", "-1"])
def test_what_is_no_port_is_told(word: str) -> None:
    with pytest.raises(UsageError, match="not a port"):
        understood(f"--portal={word}")


def test_what_is_typed_goes_before_the_profile() -> None:
    assert TypedWishes().over(announce=False, portal=80) == LanWishes(announce=False, portal=80)
    assert TypedWishes(announce=True, portal=1).over(announce=False, portal=80) == LanWishes(
        announce=True, portal=1
    )


def test_a_portal_that_nobody_would_see_or_that_is_in_the_way_is_refused() -> None:
    with pytest.raises(UsageError, match="not shared with"):
        refuse_portal_alone(TypedWishes(portal=0), is_shared=False)
    refuse_portal_alone(TypedWishes(portal=0), is_shared=True)
    refuse_portal_alone(TypedWishes(), is_shared=False)
    spec = parse_forward("7748:8888")
    with pytest.raises(UsageError, match="listen at the same place"):
        refuse_portal_twice(LanWishes(portal=7748), [spec])
    refuse_portal_twice(LanWishes(portal=USUAL_PORT), [spec])
    refuse_portal_twice(LanWishes(portal=7748), [parse_forward("7748:88", Direction.REMOTE)])


def test_tokens_are_for_a_page_that_there_is() -> None:
    with pytest.raises(UsageError, match="without --portal"):
        refuse_tokens_alone(LanWishes(tokens=True))
    refuse_tokens_alone(LanWishes(portal=0, tokens=True))
    refuse_tokens_alone(LanWishes())
