"""The frame of the command line: the table of commands, and how a run ends.

Nothing heavier than click is imported here; a command's module is loaded when the command is
called. Commands raise SshvpnError; only :func:`run` turns errors into words and exit codes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import click

from sshvpn import __version__
from sshvpn.errors import SshvpnError, UsageError, printable

PROGRAM = "sshvpn"
COMPLETE_VARIABLE = "_SSHVPN_COMPLETE"
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell shows of a program whose reader went away."""
_LINE_MAX = 1200
_LONG_WORD = re.compile(r"(\S{80})\S{220,}")
"""Longer than any path or key; what a parser quotes it has shortened itself."""


class LazyCommand(NamedTuple):
    """A command that is loaded when it is called: ``attribute`` of ``module``."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "up": LazyCommand("sshvpn.cli.up", "up", "Bring up the VPN to a host."),
    "forward": LazyCommand("sshvpn.cli.forward", "forward", "Forward ports through a host."),
    "notebook": LazyCommand(
        "sshvpn.cli.notebook", "notebook", "Start or find Jupyter on a host, and open it here."
    ),
    "status": LazyCommand("sshvpn.cli.status", "status", "Show what is up, and its URLs."),
    "down": LazyCommand("sshvpn.cli.down", "down", "Take down what runs in the background."),
    "routes": LazyCommand(
        "sshvpn.cli.routes", "routes", "Show what a machine of the LAN needs for the networks."
    ),
    "restart": LazyCommand(
        "sshvpn.cli.restart", "restart", "Make a new connection, with the profile as it is now."
    ),
    "enable": LazyCommand(
        "sshvpn.cli.enable", "enable", "Keep NAME up for ever, as a systemd service."
    ),
    "disable": LazyCommand("sshvpn.cli.enable", "disable", "Undo enable."),
    "logs": LazyCommand("sshvpn.cli.logs", "logs", "Show what happened."),
    "clean": LazyCommand("sshvpn.cli.clean", "clean", "Remove what a crash left behind."),
    "config": LazyCommand("sshvpn.cli.config", "config", "Show, edit or check the profiles."),
    "completion": LazyCommand(
        "sshvpn.cli.completion", "completion", "Print the completion script of a shell."
    ),
}

NOT_YET = frozenset(
    {"check"},
)
"""Commands of the contract that this version has not: their names are not mistakes."""


@dataclass
class Invocation:
    """What holds for one run of the command line, whatever the command (``ctx.obj``)."""

    debug: bool = False


def _note_debug(context: click.Context, _parameter: click.Parameter, value: object) -> None:
    if value:
        context.ensure_object(Invocation).debug = True


def _debug_option() -> click.Option:
    """Return ``--debug``, which every command takes, so that it may stand anywhere."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note_debug,
        help="Show a traceback when something fails.",
    )


@functools.cache
def load(name: str) -> click.Command:
    """Import the command ``name`` of the table and return it, with ``--debug`` added."""
    entry = COMMANDS[name]
    command = getattr(importlib.import_module(entry.module), entry.attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{entry.module}.{entry.attribute} is not a click command")
    _add_debug(command)
    return command


def _add_debug(command: click.Command) -> None:
    command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_debug(inner)
    plain = getattr(command, "plain", None)
    if isinstance(plain, click.Command):
        _add_debug(plain)


class LazyGroup(click.Group):
    """A group whose commands come from :data:`COMMANDS`; its help imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command, or return None where there is none of that name."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of ``args``; a word that is none raises UsageError with the nearest."""
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise _no_such_command(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete the name of a command, or an option of the group."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _no_such_command(word: str) -> UsageError:
    if word in NOT_YET:
        return UsageError(
            f"'{word}' is not in this version ({__version__})", f"it has: {', '.join(COMMANDS)}"
        )
    from difflib import get_close_matches

    from sshvpn.spec import is_host

    nearest = get_close_matches(word, COMMANDS, n=1)
    if nearest:
        return UsageError(f"no command '{word}'", f"did you mean: {PROGRAM} {nearest[0]}")
    if "@" in word or not is_host(word):
        spec = " 8888" if is_host(word) else ""
        return UsageError(f"no command '{word}'", f"did you mean: {PROGRAM} forward {word}{spec}")
    return UsageError(f"no command '{word}'", f"see: {PROGRAM} --help")


def _show_version(context: click.Context, _parameter: click.Parameter, value: object) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        context.exit()


@click.pass_context
def help_if_alone(context: click.Context) -> None:
    """Show a group's help when it is called without a command: exit 2, as for a missing word."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(UsageError.exit_code)


cli = LazyGroup(
    name=PROGRAM,
    callback=help_if_alone,
    invoke_without_command=True,
    help="A VPN-style tunnel manager over plain SSH.",
    epilog=f"Each command has its own help: {PROGRAM} COMMAND --help",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
        _debug_option(),
    ],
)


def run(arguments: Sequence[str]) -> int:
    """Run the command line, and return the exit code of cli.md. Prints errors on stderr."""
    _make_printable(sys.stdout)
    _make_printable(sys.stderr)
    invocation = Invocation()
    try:
        code = _invoke(list(arguments), invocation)
        _flush()
    except BrokenPipeError:
        _let_go_of_stdout()
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last resort; --debug shows the traceback
        if isinstance(error.__cause__, KeyboardInterrupt):  # of Python 3.10, 3.11: see __main__
            click.echo(err=True)
            return INTERRUPTED
        if invocation.debug:
            import traceback

            traceback.print_exc()
        return _report(_of_stdout(error))
    return code


def _invoke(arguments: list[str], invocation: Invocation) -> int:
    """Parse and run. What click's own ``main`` does, less its way of ending."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
    try:
        with cli.make_context(PROGRAM, arguments, obj=invocation) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        click.echo(err=True)
        return INTERRUPTED
    return 0


def _report(error: Exception) -> int:
    """Print what went wrong and what to do next; return the exit code."""
    if isinstance(error, SshvpnError):
        return tell(error)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        return _tell(error.format_message(), f"see: {path} --help", UsageError.exit_code)
    if isinstance(error, click.ClickException):
        return _tell(error.format_message(), "", SshvpnError.exit_code)
    if isinstance(error, click.Abort):
        # click's word for both ^C and the end of input at a prompt.
        if sys.stdin is not None and sys.stdin.isatty():
            return INTERRUPTED
        return _tell("nobody answered", "run it at a terminal", SshvpnError.exit_code)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _tell(f"unexpected {what}", "run it again with --debug", SshvpnError.exit_code)


def tell(error: SshvpnError, name: str = "") -> int:
    """Print ``error``, of the one called ``name`` where several are at work; its exit code."""
    message = f"{name}: {error.message}" if name else error.message
    return _tell(message, error.hint, error.exit_code)


def _tell(message: str, hint: str, code: int) -> int:
    lines = [f"{PROGRAM}: {_readable(message)}"] + ([f"  {_readable(hint)}"] if hint else [])
    with contextlib.suppress(OSError):  # nobody is there to be told
        click.echo("\n".join(lines), err=True)
    return code


def _readable(text: str) -> str:
    """Return ``text`` on one line, with what is too long to be read cut short."""
    words = _LONG_WORD.sub(r"\1…", printable(text))
    return words if len(words) <= _LINE_MAX else f"{words[:_LINE_MAX]}…"


def _make_printable(stream: object) -> None:
    """Let ``stream`` replace what the locale cannot write, instead of failing on it."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write out stdout; a full disk is an error now, not at the interpreter's end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _let_go_of_stdout()
        raise SshvpnError(f"cannot write to standard output: {error.strerror}") from error


def _of_stdout(error: Exception) -> Exception:
    """Return ``error``, or in place of a command's that could not write to stdout what says so."""
    try:
        _flush()
    except SshvpnError as failed:
        return failed
    except BrokenPipeError:
        _let_go_of_stdout()
    return error


def _let_go_of_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush succeeds."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdout.fileno())
