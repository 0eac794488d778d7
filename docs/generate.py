"""Write docs/reference.md from the code: ``python docs/generate.py``.

A unit test holds that the page is what this would write.
"""
# ruff: noqa: INP001 - a script beside the page that it writes

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sshvpn.cli.group import CommandGroup
from sshvpn.cli.main import COMMANDS, PROGRAM, cli, load

PAGE = Path(__file__).with_name("reference.md")

HEAD = f"""\
<!-- Written by docs/generate.py from the code: change the code, then run it again. -->

# The commands of {PROGRAM}

`{PROGRAM} COMMAND --help` says the same at the terminal. What a `SPEC` may be is in
[forward.md](forward.md), the keys of a profile are in [configuration.md](configuration.md).
"""

EXIT_CODES = {
    0: "done; a service ended by TERM; `status` without a name, always",
    1: "failed for a reason that the message names",
    2: "a wrong word on the command line, or a wrong line in a file, with file and line",
    3: "not there: `down`, `status`, `logs` of something that is not up",
    4: "needs privilege that could not be had",
    5: "the server refused: authentication, host key, forwarding",
    6: "could not reach the server, or lost it and gave up",
    7: "an address, a port, a route or a device is taken",
    130: "interrupted",
}

TAIL = """\
An error is one or two lines on stderr: what went wrong, then what to do next.
"""


def reference() -> str:
    """Return the whole page."""
    blocks = [HEAD, "| command | what it does |\n|---|---|\n" + "".join(_summaries())]
    blocks += [
        "Every command takes `--debug`, anywhere on the line, and `-h` or `--help`.\n",
        _options(cli.params),
    ]
    for name in COMMANDS:
        blocks += _command(f"{PROGRAM} {name}", load(name), level=2)
    blocks.append("## Exit codes\n")
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    blocks += [f"| code | meaning |\n|---|---|\n{rows}", TAIL]
    return "\n".join(blocks)


def _summaries() -> Iterator[str]:
    for name, entry in COMMANDS.items():
        yield f"| [`{PROGRAM} {name}`](#{PROGRAM}-{name}) | {entry.summary} |\n"


def _command(path: str, command: click.Command, level: int) -> Iterator[str]:
    if isinstance(command, CommandGroup):
        yield from _command(path, command.plain, level)
        for name, inner in command.commands.items():
            yield from _command(f"{path} {name}", inner, level + 1)
        return
    yield f"{'#' * level} {path}\n"
    yield f"```\n{' '.join([path, *_usage(command)])}\n```\n"
    yield _prose(command.help or "")
    own = [param for param in command.params if param.name != "debug"]
    if any(isinstance(param, click.Option) for param in own):
        yield _options(own)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(f"{path} {name}", inner, level + 1)


def _usage(command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield "COMMAND"
    if any(isinstance(p, click.Option) and p.name != "debug" for p in command.params):
        yield "[OPTIONS]"
    for param in command.params:
        if isinstance(param, click.Argument):
            word = param.metavar or _kind(param) or str(param.name).upper()
            yield word if param.required or "[" in word else f"[{word}]"


def _prose(text: str) -> str:
    r"""Return a help text as Markdown: what click keeps as it is (``\b``) becomes a code block."""
    blocks = []
    for block in inspect.cleandoc(text).split("\n\n"):
        lines = block.splitlines()
        kept = bool(lines) and lines[0].strip() == "\b"
        blocks.append("\n".join(["```", *lines[1:], "```"]) if kept else block)
    return "\n\n".join(blocks) + "\n"


def _options(params: Sequence[click.Parameter]) -> str:
    rows = [
        f"| {_names(param)} | {_cell(param.help or '')} |"
        for param in params
        if isinstance(param, click.Option) and not param.hidden
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *rows, ""])


def _names(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or _kind(option) or 'TEXT'}"
    names = ", ".join(f"`{_cell(name + value)}`" for name in option.opts)
    others = ", ".join(f"`{name}`" for name in option.secondary_opts)
    return f"{names} / {others}" if others else names


def _kind(parameter: click.Parameter) -> str:
    return "|".join(parameter.type.choices) if isinstance(parameter.type, click.Choice) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference())
