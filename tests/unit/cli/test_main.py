"""The frame of the command line, as a shell sees it: words, exit codes, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import pytest

from sshvpn import __version__
from sshvpn.cli import main
from sshvpn.errors import HostKeyChangedError, SshvpnError

PROGRAM = [sys.executable, "-m", "sshvpn"]


def sshvpn(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real program, without a terminal."""
    return subprocess.run(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )


def assert_told(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Assert an error as cli.md wants it: one or two lines on stderr, and the exit code."""
    assert done.returncode == code, done
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("sshvpn: ")
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command() -> None:
    done = sshvpn("--help")
    assert done.returncode == 0
    for name, entry in main.COMMANDS.items():
        assert name in done.stdout
        assert entry.summary in done.stdout


def test_help_loads_click_and_nothing_heavier() -> None:
    code = (
        "import sys, click; before = set(sys.modules);"
        "from sshvpn.cli.main import run; run(['--help']);"
        "print(*sorted(m for m in sys.modules if m.startswith('sshvpn')), file=sys.stderr);"
        "heavy = {'asyncio', 'ipaddress', 'json', 'paramiko', 'pyroute2', 'rich', 'sshtunnel',"
        " 'subprocess', 'tomllib', 'difflib', 'netifaces', 'segno', 'hashlib', 'socket'};"
        "print(*sorted(heavy & set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    ours, heavy = done.stderr.split("\n")[:2]
    assert ours.split() == ["sshvpn", "sshvpn.cli", "sshvpn.cli.main", "sshvpn.errors"]
    assert heavy == ""


def test_the_version_is_the_package_s() -> None:
    done = sshvpn("--version")
    assert (done.returncode, done.stdout) == (0, f"sshvpn {__version__}\n")


def test_without_a_word_the_help_is_an_answer_but_no_success() -> None:
    done = sshvpn()
    assert done.returncode == 2
    assert "Commands:" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_of_the_table_is_there_and_has_help(name: str) -> None:
    done = sshvpn(name, "--help")
    assert done.returncode == 0
    assert "--debug" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["satus"], ("no command 'satus'", "sshvpn status")),
        (["zzzz"], ("no command 'zzzz'", "sshvpn --help")),
        (["9999:8888"], ("no command", "sshvpn forward 9999:8888")),
        (["alice@gpu"], ("no command", "sshvpn forward alice@gpu 8888")),
        (["--frobnicate"], ("--frobnicate", "sshvpn --help")),
        (["status", "--jsn"], ("--jsn", "sshvpn status --help")),
        (["completion", "tcsh"], ("tcsh", "sshvpn completion --help")),
        (["a\x1b[31mb"], ("no command 'a\\x1b[31mb'",)),
    ],
)
def test_a_wrong_word_is_exit_2_with_the_nearest_right_one(
    words: Sequence[str], told: Sequence[str]
) -> None:
    assert_told(sshvpn(*words), 2, *told)


@pytest.mark.parametrize("name", sorted(main.NOT_YET))
def test_a_command_of_a_later_version_is_told_as_such(name: str) -> None:
    assert name not in main.COMMANDS
    assert_told(sshvpn(name, "gpu"), 2, f"'{name}' is not in this version", "forward")


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_a_locale_without_the_letters_does_not_crash(locale: Mapping[str, str]) -> None:
    assert_told(sshvpn("büro…\udcff", env=locale), 2, "no command")
    done = sshvpn("forward", "--help", env=locale)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [*PROGRAM, "--help"], stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("words", [("--help",), ("status",), ("status", "--json")])
def test_a_full_disk_is_told(words: tuple[str, ...], tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("PYTHONUNBUFFERED", None)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, *words],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert_told(done, 1, "cannot write to standard output: No space left on device")


def test_no_stdout_at_all_does_not_crash() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# What a command does, and how the frame ends it. The commands here are real click commands.


def failing(error: BaseException) -> click.Command:
    def callback() -> None:
        raise error

    return click.Command("failing", callback=callback)


def run(command: click.Command, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run ``command`` through the frame, in this process."""
    main._add_debug(command)
    monkeypatch.setitem(main.COMMANDS, "failing", main.LazyCommand("x", "y", "Fails."))
    monkeypatch.setattr(main, "load", lambda _name: command)
    return main.run(["failing", *words])


def interrupted_while_it_loads() -> RuntimeError:
    """Return what Python before 3.12 makes of ^C while a class is made (``__set_name__``)."""
    error = RuntimeError("Error calling __set_name__ on 'cached_property' instance 'hostmask'")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (SshvpnError("it broke", "mend it"), 1, "sshvpn: it broke\n  mend it\n"),
        (SshvpnError("it broke"), 1, "sshvpn: it broke\n"),
        (SshvpnError("a\nb\x1b[0m"), 1, "sshvpn: a b\\x1b[0m\n"),
        (HostKeyChangedError("another key"), 5, "sshvpn: another key\n"),
        (click.ClickException("clicked"), 1, "sshvpn: clicked\n"),
        (click.UsageError("not so"), 2, "sshvpn: not so\n  see: sshvpn failing --help\n"),
        (
            ValueError("odd"),
            1,
            "sshvpn: unexpected ValueError: odd\n  run it again with --debug\n",
        ),
        (KeyError(), 1, "sshvpn: unexpected KeyError\n  run it again with --debug\n"),
        (click.exceptions.Exit(7), 7, ""),
        (KeyboardInterrupt(), 130, "\n"),
        (interrupted_while_it_loads(), 130, "\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_every_end_has_its_words_and_its_exit_code(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(failing(error), monkeypatch) == code
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("words", [["failing", "--debug"], ["--debug", "failing"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = failing(SshvpnError("it broke"))
    main._add_debug(command)
    monkeypatch.setitem(main.COMMANDS, "failing", main.LazyCommand("x", "y", "Fails."))
    monkeypatch.setattr(main, "load", lambda _name: command)
    assert main.run(words) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.endswith("sshvpn: it broke\n")


def test_a_prompt_that_nobody_answers_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(click.Abort()), monkeypatch) == 1
    assert "nobody answered" in capsys.readouterr().err


def test_an_interrupt_while_modules_load_is_exit_130(tmp_path: Path) -> None:
    slow = tmp_path / "click.py"
    slow.write_text("import os, signal, time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        PROGRAM,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(main.__file__).parents[2]}"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "words",
    [
        ["forward", "gpu", "a" * 100_000],
        ["forward", "gpu", "8888", "--engine", "a" * 100_000],
        ["forward", "gpu", "8888", "--name", "a" * 100_000],
        ["a" * 100_000],
    ],
    ids=["host", "choice", "name", "command"],
)
def test_what_is_quoted_is_shortened_and_the_hint_still_read(words: list[str]) -> None:
    done = sshvpn(*words, env={"SSHVPN_CONFIG": os.devnull})
    assert_told(done, 2)
    assert len(done.stderr) < 2500
    assert len(done.stderr.splitlines()) == 2
