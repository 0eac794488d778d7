"""``sshvpn config``: where the profiles are, what they say, and a safe way to change them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from sshvpn.cli.main import help_if_alone
from sshvpn.config import Config, config_path, load, parse, read_text, render
from sshvpn.errors import ConfigError, SshvpnError, UsageError

UNCHANGED = "nothing was changed"
TEMPLATE = """\
# The profiles of sshvpn. A host is what ssh takes: user@example.com, or an alias of ssh_config.

# default_host = "gpu-box"

# [forwards.notebook]                 # sshvpn forward notebook
# host = "gpu-box"
# specs = ["9999:8888"]               # here 9999, at the host 8888
# bind = ["eth0"]                     # or lan = true; loopback unless said

# [tunnels.office]
# host = "alice@vpn.example.com"
# routes = ["10.20.0.0/16"]
"""


config = click.Group(
    "config",
    callback=help_if_alone,
    invoke_without_command=True,
    help="Show, edit or check the profiles.",
    short_help="Show, edit or check the profiles.",
)


@config.command()
def path() -> None:
    """Print where the configuration is, or would be."""
    click.echo(config_path())


@config.command()
def show() -> None:
    """Print what the configuration says, defaults included, as TOML."""
    found = load()
    if found.path is None:
        click.echo(f"# {config_path()}: there is no such file")
        return
    click.echo(f"# {found.path}")
    click.echo(render(found), nl=False)


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Check the configuration, or FILE; a mistake is exit 2."""
    if file is not None and not file.exists():
        raise UsageError(f"{file}: there is no such file", "look at its path")
    found = load(file)
    if found.path is None:
        click.echo(f"{config_path()}: there is no such file; nothing is configured")
        return
    click.echo(f"{found.path}: {_summary(found)}")


@config.command()
def edit() -> None:
    """Edit the configuration with $VISUAL or $EDITOR.

    What was edited takes the file's place once it is right, all at once; the file is never
    broken.
    """
    file = config_path()
    before = read_text(file)
    edited = click.edit(before or TEMPLATE, extension=".toml")
    while edited is not None and edited != before:
        try:
            parse(edited, file)
        except ConfigError as error:
            edited = _edited_again(edited, error)
            continue
        replace_file(file, edited)
        click.echo(f"{file}: {_summary(load(file))}")  # which looks at its directory too
        return
    click.echo(f"{file}: {UNCHANGED}")


def _edited_again(text: str, error: ConfigError) -> str | None:
    """Offer the editor once more for a text with a mistake; None: the person gave up."""
    if not sys.stdin.isatty():
        raise ConfigError(error.message, "; ".join(filter(None, (UNCHANGED, error.hint))))
    click.echo(f"sshvpn: {error.message}\n  {error.hint}".rstrip(), err=True)
    if not click.confirm("Edit it again?", default=True, err=True):
        raise UsageError(UNCHANGED, "what was edited had a mistake")
    return click.edit(text, extension=".toml", require_save=False)


def replace_file(file: Path, text: str) -> None:
    """Put ``text`` in the place of ``file`` in one step, mode 0600; its directory is made.

    A symbolic link stays, and what it leads to is replaced. A crash leaves the old file.
    """
    target = Path(os.path.realpath(file))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it 0600, and exclusively.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as new:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise SshvpnError(f"{file}: cannot be written: {error.strerror}") from error


def _summary(found: Config) -> str:
    counts = ((len(found.forwards), "forward"), (len(found.tunnels), "tunnel"))
    told = ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for count, word in counts)
    return f"good, {told}"
