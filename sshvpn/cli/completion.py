"""``sshvpn completion``: the script that makes a shell complete the words of sshvpn."""

from __future__ import annotations

import click

from sshvpn.cli.main import COMPLETE_VARIABLE, PROGRAM, cli

HELP = """Print the completion script of a shell.

\b
bash   sshvpn completion bash > ~/.local/share/bash-completion/completions/sshvpn
zsh    sshvpn completion zsh > "${fpath[1]}/_sshvpn"
fish   sshvpn completion fish > ~/.config/fish/completions/sshvpn.fish

Hosts come from ssh_config and from the profiles, names from what runs.
"""


@click.command(help=HELP, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script; it calls sshvpn back at each TAB."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click cannot complete in {shell}")
    # Not kind.source: for bash that starts a bash, to look at its version.
    click.echo(ShellComplete.source(kind(cli, {}, PROGRAM, COMPLETE_VARIABLE)))
