"""Options that several commands share: what is handed to ssh, and how much is said."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sshvpn.errors import UsageError
from sshvpn.model import SshOptions
from sshvpn.spec import check_jump, check_user, parse_port, parse_ssh_option

verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Tell more: what ssh says of itself, too."
)

metrics_option = click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Let Prometheus read there how it does; without ADDRESS on loopback.",
)

keepalive_option = click.option(
    "--keepalive",
    "keepalive_s",
    type=int,
    metavar="SECONDS",
    help="Ask the server for a sign of life after so much silence (default 3); after three times "
    "as long without one, at the latest, a new connection is made.",
)


def kind_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--tunnel`` and ``--forward``, for what may be called the same: ``session``, or None."""
    tunnel = click.option("--tunnel", "session", flag_value="tunnel", help="The tunnel NAME.")
    forward = click.option("--forward", "session", flag_value="forward", help="The forward NAME.")
    return tunnel(forward(command))


def ssh_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``-F -i -J -l -o -p`` as in ssh; the command gets them checked, as ``ssh: SshOptions``.

    Relative paths become absolute: what runs in the background lives elsewhere. ``-l`` and
    ``-p`` are options of ssh_config, and go before what HOST says, as ssh has it.
    """

    @click.option(
        "-F", "config_file", metavar="FILE", type=click.Path(), help="ssh_config to use, as in ssh."
    )
    @click.option(
        "-i",
        "identity_files",
        metavar="KEY",
        type=click.Path(),
        multiple=True,
        help="Key to log in with, as in ssh.",
    )
    @click.option("-J", "jump", metavar="JUMP", help="Hosts to go through, as in ssh.")
    @click.option("-l", "user", metavar="USER", help="Who logs in, as in ssh.")
    @click.option("-p", "port", metavar="PORT", help="The server's port, as in ssh.")
    @click.option(
        "-o",
        "options",
        metavar="OPTION=VALUE",
        multiple=True,
        help="Option of ssh_config, as in ssh.",
    )
    @functools.wraps(command)
    def with_ssh(
        *args: Any,
        config_file: str | None,
        identity_files: tuple[str, ...],
        jump: str | None,
        user: str | None,
        port: str | None,
        options: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        ssh = SshOptions(
            config_file=None if config_file is None else _config_file(config_file),
            identity_files=tuple(_identity_file(file) for file in identity_files),
            jump=None if jump is None else check_jump(jump),
            options=(
                *([] if user is None else [("User", check_user(user))]),
                *([] if port is None else [("Port", str(parse_port(port, "-p")))]),
                *(parse_ssh_option(option) for option in options),
            ),
        )
        return command(*args, ssh=ssh, **kwargs)

    return with_ssh


def _config_file(file: str) -> str:
    if file.lower() == "none":  # ssh_config(5): no file at all
        return file
    return _existing("-F", file)


def _identity_file(file: str) -> str:
    if file.startswith("~") or "%" in file or "${" in file:  # ssh expands these itself
        return _one_line("-i", file)
    return _existing("-i", file)


def _existing(option: str, file: str) -> str:
    path = Path(_one_line(option, file)).absolute()
    if not path.is_file():
        raise UsageError(f"{option} {file}: there is no such file", "look at its path")
    return str(path)


def _one_line(option: str, file: str) -> str:
    # ssh -G prints it on a line of its own, which is parsed.
    if not file or not file.isprintable():
        raise UsageError(f"{option} {file!r} is no name of a file", "write a path")
    return file
