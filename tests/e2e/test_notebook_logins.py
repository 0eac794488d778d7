"""`sshvpn notebook` at servers of other kinds: every login shell, a noisy one, root's, a jump host.

A login shell prints when it starts, on both of its outputs; the home directory has a space in its
name; where the environment is put on the PATH is the shell's own file.
"""

from __future__ import annotations

import pytest

from tests.e2e.notebooks import PATH_LINE, VENV, Notebooks, bare, make_venv, url_in
from tests.e2e.office import Office

HOME = "/home/a home"
NOISE = 'echo "Welcome! Have a nice day"; echo "a complaint" >&2\n'
CONDA = f"case $- in *i*) ;; *) return ;; esac\n{PATH_LINE}"
FISH = f'if status is-login\nset -gx PATH "$HOME/{VENV}/bin" $PATH\nend\n'
TCSH = f'setenv PATH "$HOME/{VENV}/bin:$PATH"\n'
SHELLS = {
    "bash": ("/bin/bash", {".bashrc": NOISE, ".bash_profile": NOISE + PATH_LINE}),
    "bash as conda has it": ("/bin/bash", {".bashrc": CONDA, ".profile": ". ~/.bashrc\n"}),
    "dash": ("/bin/dash", {".profile": NOISE + PATH_LINE}),
    "zsh": ("/usr/bin/zsh", {".zshenv": NOISE, ".zprofile": PATH_LINE}),
    "fish": ("/usr/bin/fish", {".config/fish/config.fish": NOISE + FISH}),
    "tcsh": ("/bin/tcsh", {".tcshrc": "echo Welcome\n", ".login": TCSH}),
    "ash": ("/var/ash", {".profile": NOISE + PATH_LINE}),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_with_any_login_shell_and_a_space_in_the_home_directory(
    own_office: Office, shell: str
) -> None:
    server = own_office.server
    path, files = SHELLS[shell]
    server.run(["cp", "/usr/bin/busybox", "/var/ash"], user="root")
    words = ["useradd", "-m", "-d", HOME, "-s", path, "-p", "*", "carol"]
    server.run(words, user="root")
    server.run(["install", "-d", "-o", "carol", f"{HOME}/.ssh"], user="root")
    key = own_office.gateway.read("/home/alice/.ssh/id_ed25519.pub")
    server.write(f"{HOME}/.ssh/authorized_keys", key, "carol")
    make_venv(server, f"{HOME}/{VENV}", "carol")
    for name, text in files.items():
        server.write(f"{HOME}/{name}", text, "carol")
    notebooks = Notebooks(own_office)
    own_office.lab.checkpoint()
    host = "carol@server"
    said = notebooks.run("-b", "--no-browser", host).stdout
    assert said.startswith(f"Jupyter in {HOME} at {host}, started: {HOME}/{VENV}/bin/jupyter-lab")
    url = url_in(said)
    assert notebooks.status(url) == "200"
    if shell == "bash":
        assert notebooks.execute(url, "import os; print(os.getcwd())")[0] == f"{HOME}\n"
        again = notebooks.run("-b", "--no-browser", "--name", "again", host).stdout
        assert "it ran already" in again
    assert notebooks.run("stop", host).stdout.endswith(f"Jupyter in {HOME} at {host} has ended\n")
    assert own_office.status() == []
    notebooks.end()


def test_as_root_through_a_jump_host_by_the_options_of_ssh(own_office: Office) -> None:
    office = own_office
    assert office.lab.jump.name == "jump"
    server = office.server
    server.authorize("root")
    notebooks = Notebooks(office)
    make_venv(server, f"/root/{VENV}", "root")
    server.write("/root/.profile", PATH_LINE, "root")
    office.lab.checkpoint()
    options = ("-J", "jump", "-l", "root", "-o", "ServerAliveInterval=5")
    said = notebooks.run("-b", "--no-browser", *options, "server").stdout
    assert said.startswith("Jupyter in /root at server, started: ")
    assert notebooks.status(url_in(said)) == "200"
    notebooks.run("stop", *options, "server")
    notebooks.end()


def test_a_login_that_runs_no_commands_is_told(own_office: Office) -> None:
    notebooks = Notebooks(own_office)
    own_office.server.authorize(options='command="/bin/false"')
    own_office.lab.checkpoint()
    refused = notebooks.refused(1, "-b", "server")
    assert "this login at server runs no commands" in refused
    assert own_office.status() == []
    notebooks.end()


def test_two_of_one_name_on_two_servers_are_two(running: Notebooks) -> None:
    notebooks, office = running, running.office
    first = notebooks.open("--name", "one")
    second = notebooks.open("--name", "two")
    assert bare(first) == "http://localhost:9999/"
    assert bare(second) == "http://localhost:10000/"
    assert [record["target"] for record in office.status()] == ["127.0.0.1:8888"] * 2
    assert office.sshvpn("down", "--all").stdout.count("is down") == 2
