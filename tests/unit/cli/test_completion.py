"""Completion in real shells: what TAB offers in bash, zsh and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pexpect
import pytest

SSH_CONFIG = """\
Host gpu-box gpu-*  # a comment
    HostName 10.0.0.1
Include extra/*.conf
Host=web !not
Match host x
"""
CONFIG = '[forwards.gpu-notes]\nhost = "gpu-box"\nspecs = ["9999:8888"]\n'
SHELLS = [
    pytest.param(
        shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not there")
    )
    for shell in ("bash", "zsh", "fish")
]


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """Return the environment of a user with aliases, a profile, and sshvpn on the PATH."""
    ssh = tmp_path / ".ssh" / "extra"
    ssh.mkdir(parents=True)
    (ssh.parent / "config").write_text(SSH_CONFIG)
    (ssh / "a.conf").write_text('Host "gpu-far" 10.1.2.3\n')
    config = tmp_path / ".config" / "sshvpn"
    config.mkdir(mode=0o700, parents=True)
    (config / "config.toml").write_text(CONFIG)
    (config / "config.toml").chmod(0o600)
    program = tmp_path / "bin" / "sshvpn"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$1" = forward ] && exec echo "<$*>"\n'
        f'exec "{sys.executable}" -m sshvpn "$@"\n'
    )
    program.chmod(0o755)
    source = Path(__file__).parents[3]
    return {
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(source),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }


def offered(shell: str, line: str, env: Mapping[str, str]) -> list[str]:
    """Return what ``shell`` offers for the last word of ``line``."""
    if shell == "zsh":
        return offered_by_zsh(line, env)
    scripts = {
        "bash": (
            'eval "$(sshvpn completion bash)"; COMP_WORDS=($1);'
            ' [[ $1 == *" " ]] && COMP_WORDS+=("");'
            " COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _sshvpn_completion sshvpn;"
            ' printf "%s\\n" "${COMPREPLY[@]}"'
        ),
        "fish": "sshvpn completion fish | source; complete -C $argv[1]",
    }
    words = [shell, *(["--no-config"] if shell == "fish" else []), "-c", scripts[shell]]
    words += ["bash", line] if shell == "bash" else [line]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return [word.split("\t")[0] for word in done.stdout.splitlines() if word]


def offered_by_zsh(line: str, env: Mapping[str, str]) -> list[str]:
    """Type ``line`` and TAB into a zsh whose compadd prints what it is given."""
    script = (
        'autoload -Uz compinit; compinit -u -D; eval "$(sshvpn completion zsh)";'
        "compadd() { local a; for a in $completions $completions_with_descriptions; do"
        ' print -r -- "=${a%%:*}="; done };'
        "_describe() { compadd };"
        "probe() { words=(${(z)line}); [[ $line == *' ' ]] && words+=('');"
        " CURRENT=$#words; _sshvpn_completion };"
        "probe; exit"
    )
    done = subprocess.run(
        ["zsh", "-f", "-c", script],
        env={**env, "line": line},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(dict.fromkeys(w.strip("=") for w in done.stdout.splitlines() if w.startswith("=")))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sshvpn com", {"completion"}),
        ("sshvpn config ", {"path", "show", "edit", "check"}),
        ("sshvpn forward --eng", {"--engine"}),
        ("sshvpn forward gpu", {"gpu-box", "gpu-far", "gpu-notes"}),
    ],
)
def test_a_shell_offers(shell: str, line: str, words: set[str], env: Mapping[str, str]) -> None:
    assert set(offered(shell, line, env)) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sshvpn completion z", {"zsh"}),
        ("sshvpn forward 8888 w", {"web"}),
        ("sshvpn forward web gpu", set()),
        ("sshvpn forward --host gpu-f", {"gpu-far"}),
        ("sshvpn status x", set()),
    ],
)
def test_what_is_offered_depends_on_the_line(
    line: str, words: set[str], env: Mapping[str, str]
) -> None:
    assert set(offered("bash", line, env)) == words


@pytest.mark.parametrize("shell", ["fish", "zsh"])
def test_behind_a_user_the_aliases_are_offered(shell: str, env: Mapping[str, str]) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not there")
    assert set(offered(shell, "sshvpn forward alice@gpu", env)) == {
        "alice@gpu-box",
        "alice@gpu-far",
    }


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("we", "web"), ("alice@we", "alice@web"), ("alice@10", "alice@10.1.2.3")],
)
def test_tab_completes_in_a_bash_at_a_terminal(
    typed: str, completed: str, env: Mapping[str, str]
) -> None:
    child = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        env={**env, "PS1": "ready> "},
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("ready> ")
    child.sendline('eval "$(sshvpn completion bash)"')
    child.expect_exact("ready> ")
    child.send(f"sshvpn forward {typed}\t9999")
    child.expect_exact("9999")  # readline has done with the TAB before it
    child.sendline("")
    child.expect_exact(f"<forward {completed} 9999>")
    child.expect_exact("ready> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()


def test_a_broken_configuration_is_silent(env: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / ".config" / "sshvpn" / "config.toml").write_text("broken")
    assert set(offered("bash", "sshvpn forward gpu", env)) == {"gpu-box", "gpu-far"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_starts_no_shell_of_its_own(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sshvpn", "completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PATH": "/nowhere"},
    )
    assert "_SSHVPN_COMPLETE" in done.stdout
    assert done.stderr == ""
