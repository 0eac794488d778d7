"""``sshvpn config``: what it prints, and that editing never leaves a broken file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from sshvpn.cli.config import TEMPLATE, replace_file
from sshvpn.config import load, parse
from sshvpn.errors import SshvpnError

GOOD = '[forwards.a]\nhost = "gpu"\nspecs = ["9999:8888"]\n'
BROKEN = '[forwards.a]\nhost = "gpu"\nspecs = ["gpu:8888"]\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the configuration will be; nothing is there yet, its directory neither."""
    path = tmp_path / "home" / "sshvpn" / "config.toml"
    monkeypatch.setenv("SSHVPN_CONFIG", str(path))
    monkeypatch.delenv("VISUAL", raising=False)
    return path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True)
    file.write_text(text)
    file.chmod(0o600)


def config(*words: str, editor: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "sshvpn", "config", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "EDITOR": str(editor or "false")},
    )


def make_editor(directory: Path, *texts: str) -> Path:
    """Return an editor that writes the first text when it is called first, and so on."""
    for number, text in enumerate(texts):
        (directory / f"text{number}").write_text(text)
    script = directory / "editor"
    script.write_text(
        f"#!/bin/sh\ncd '{directory}' || exit 1\n"
        "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count\n"
        'cp "$1" "seen$n"; cat "text$n" >"$1"\n'
    )
    script.chmod(0o755)
    return script


def test_path_prints_where_it_would_be(file: Path) -> None:
    done = config("path")
    assert (done.returncode, done.stdout) == (0, f"{file}\n")


def test_without_a_file_nothing_is_configured(file: Path) -> None:
    assert f"{file}: there is no such file" in config("check").stdout
    assert config("check").returncode == 0
    shown = config("show")
    assert (shown.returncode, shown.stdout) == (0, f"# {file}: there is no such file\n")


def test_show_prints_what_is_in_force_as_toml(file: Path) -> None:
    write(file, GOOD)
    shown = config("show")
    assert shown.returncode == 0
    assert 'engine = "auto"' in shown.stdout
    assert parse(shown.stdout, file) == load(file)


def test_check_says_good_or_the_first_mistake_with_its_line(file: Path) -> None:
    write(file, GOOD)
    assert config("check").stdout == f"{file}: good, 1 forward, 0 tunnels\n"
    file.write_text(BROKEN)
    for words in ([], [str(file)]):
        done = config("check", *words)
        assert done.returncode == 2
        assert done.stderr.startswith(f"sshvpn: {file}:3: forwards.a.specs[0]: 'gpu:8888'")
    assert config("show").returncode == 2


def test_check_of_a_file_that_is_not_there_is_exit_2(file: Path) -> None:
    assert config("check", str(file)).returncode == 2


def test_a_group_alone_shows_its_help_with_exit_2() -> None:
    done = config()
    assert done.returncode == 2
    assert "Commands:" in done.stderr


def test_the_template_is_a_good_configuration(tmp_path: Path) -> None:
    assert parse(TEMPLATE, tmp_path).forwards == {}
    commented = [line.removeprefix("# ") for line in TEMPLATE.splitlines()[2:]]
    filled = parse("\n".join(commented), tmp_path)
    assert set(filled.forwards) == {"notebook"}
    assert set(filled.tunnels) == {"office"}


def test_edit_makes_a_new_file_closed_to_others(file: Path, tmp_path: Path) -> None:
    done = config("edit", editor=make_editor(tmp_path, GOOD))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seen0").read_text() == TEMPLATE
    assert file.read_text() == GOOD
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == ["config.toml"]


def test_edit_of_a_broken_file_mends_it(file: Path, tmp_path: Path) -> None:
    write(file, BROKEN)
    done = config("edit", editor=make_editor(tmp_path, GOOD))
    assert (tmp_path / "seen0").read_text() == BROKEN
    assert (done.returncode, done.stdout) == (0, f"{file}: good, 1 forward, 0 tunnels\n")
    assert file.read_text() == GOOD


def test_without_a_terminal_a_mistake_leaves_the_file_as_it_was(file: Path, tmp_path: Path) -> None:
    write(file, GOOD)
    done = config("edit", editor=make_editor(tmp_path, BROKEN))
    assert done.returncode == 2
    assert f"{file}:3: " in done.stderr
    assert "nothing was changed" in done.stderr
    assert file.read_text() == GOOD


def test_an_editor_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    write(file, GOOD)
    done = config("edit")
    assert done.returncode == 1
    assert "false" in done.stderr
    assert file.read_text() == GOOD


def test_an_edit_that_changes_nothing_says_so(file: Path, tmp_path: Path) -> None:
    write(file, GOOD)
    before = file.stat().st_ino
    done = config("edit", editor=make_editor(tmp_path, GOOD))
    assert (done.returncode, done.stdout) == (0, f"{file}: nothing was changed\n")
    assert file.stat().st_ino == before


def test_edit_replaces_what_a_symbolic_link_leads_to(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "real.toml"
    write(real, BROKEN)
    file.parent.mkdir(mode=0o700, parents=True)
    file.symlink_to(real)
    assert config("edit", editor=make_editor(tmp_path, GOOD)).returncode == 0
    assert file.is_symlink()
    assert real.read_text() == GOOD


def test_at_a_terminal_a_mistake_is_offered_again_with_what_was_typed(
    file: Path, tmp_path: Path
) -> None:
    write(file, GOOD)
    better = GOOD.replace("9999", "7777")
    editor = make_editor(tmp_path, BROKEN, better)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "sshvpn", "config", "edit"],
        env={**os.environ, "EDITOR": str(editor)},
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("HOST and SPEC are two words")
    child.expect_exact("Edit it again?")
    assert file.read_text() == GOOD
    child.sendline("y")
    child.expect_exact("good, 1 forward")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert (tmp_path / "seen1").read_text() == BROKEN
    assert file.read_text() == better


def test_at_a_terminal_one_can_give_up(file: Path, tmp_path: Path) -> None:
    write(file, GOOD)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "sshvpn", "config", "edit"],
        env={**os.environ, "EDITOR": str(make_editor(tmp_path, BROKEN))},
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("Edit it again?")
    child.sendline("n")
    child.expect_exact("nothing was changed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert file.read_text() == GOOD


def test_a_replacement_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.mkdir()
    with pytest.raises(SshvpnError, match="cannot be written"):
        replace_file(file, GOOD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.toml"]
