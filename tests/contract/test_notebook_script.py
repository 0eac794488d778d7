"""The script that finds and starts Jupyter, in every shell that it may meet at a server.

It runs on a machine of the laboratory as it would below sshd: with nothing but its input and
output, as an ordinary user whose home directory has a space in its name.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sshvpn.model import JupyterWay, NotebookWish
from sshvpn.remote import notebook_protocol as protocol, notebook_script
from sshvpn.remote.notebook_protocol import (
    Bye,
    Directory,
    Ended,
    LogLine,
    Message,
    Problem,
    Ready,
    Server,
    Took,
)
from tests.e2e.notebooks import PATH_LINE, TOOLS, VENV, make_venv
from tests.lab import Child, Lab, wait_until

HOME = "/home/alice/a home"
RUNTIME = f"{HOME}/.local/share/jupyter/runtime"
STARTING = f"{HOME}/.local/state/sshvpn/notebooks/starting"
TOKEN = "0123456789abcdef"
ONLY_TOOLS = f"""
mkdir /run/tools
for tool in {" ".join(TOOLS)}; do ln -s "$(command -v $tool)" /run/tools; done
"""
BUSYBOX = """
for tool in /run/tools/*; do ln -sf /usr/bin/busybox "$tool"; done
"""
AS_ALICE = """
cp "$1" /run/shell.$$; mount --bind /run/shell.$$ /bin/sh; rm /run/shell.$$
export HOME="$2" SHELL="$3" PATH="$4"
cd "$HOME"
exec /usr/bin/setpriv --reuid alice --regid alice --clear-groups "$1" $5 -c "$6"
"""


@dataclass
class Site:
    """A server, on which the script runs with SHELL as /bin/sh; SETUP is done before."""

    lab: Lab
    shell: str = "/usr/bin/dash"
    applet: str = ""
    login_shell: str = "/bin/sh"
    setup: str = ONLY_TOOLS
    path: str = "/run/tools"
    raw: list[str] = field(default_factory=list)

    def begin(self, *data: bytes) -> tuple[Child, str]:
        """Start the script and send it DATA; return it and its nonce."""
        nonce = secrets.token_hex(8)
        command = protocol.remote_command(notebook_script(), nonce).replace("/bin/sh", self.shell)
        if self.applet:
            command = command.replace(self.shell, f"{self.shell} {self.applet}")
        script = f"mount -t tmpfs x /run\n{self.setup}\n{AS_ALICE}"
        words = ["unshare", "--mount", "bash", "-ec", script, "x", self.shell, HOME,
                 self.login_shell, self.path, self.applet, command]  # fmt: skip
        child = self.lab.server.popen(
            words, user="root", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdin is not None
        child.stdin.write(notebook_script() + b"".join(data).decode())
        child.stdin.flush()
        return child, nonce

    def end(self, child: Child, nonce: str) -> list[Message]:
        """Wait for the end of the script, and return what it said."""
        out, err = child.communicate(timeout=60)
        reader = protocol.Reader(nonce)
        self.raw = [*out.splitlines(), *err.splitlines()]
        return [said for line in out.splitlines() if (said := reader.feed(line)) is not None]

    def say(self, *data: bytes) -> list[Message]:
        """Run the script with DATA as its input, and return what it said."""
        return self.end(*self.begin(*data))

    def start(
        self, wish: NotebookWish | None = None, directory: str = "", within_s: int = 100
    ) -> list[Message]:
        """Look, and start a server as WISH says."""
        start = protocol.start(wish or NotebookWish(), TOKEN, shared=True, within_s=within_s)
        return self.say(protocol.look(directory), start)

    def started(self, wish: NotebookWish | None = None, directory: str = "") -> tuple[Server, str]:
        """Start a server as WISH says, and return it, with the words that did."""
        said = self.start(wish, directory)
        servers = [one for one in said if isinstance(one, Server)]
        took = [one.words for one in said if isinstance(one, Took)]
        assert len(servers) == len(took) == 1, (said, self.raw)
        return servers[0], took[0]

    def stop(self, *servers: Server) -> None:
        """End SERVERS."""
        said = self.say(protocol.stop([one.pid for one in servers]))
        assert [one for one in said if isinstance(one, Ended) and one.is_gone], (said, self.raw)
        assert isinstance(said[-1], Bye)

    def problem(self, wish: NotebookWish | None = None) -> Problem:
        """Return why no server can be started as WISH says."""
        last = self.start(wish)[-1]
        assert isinstance(last, Problem), self.raw
        return last


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a laboratory with Jupyter at the server, found by a login shell."""
    with Lab() as made:
        made.server.write(f"{HOME}/.profile", f"echo NOISE\n{PATH_LINE}")
        make_venv(made.server, f"{HOME}/{VENV}")
        yield made
        for pid, line in made.server.processes().items():
            if "jupyter" in line or "ipykernel" in line:
                made.server.kill(pid)


SHELLS = {
    "dash": ("/usr/bin/dash", "", ONLY_TOOLS),
    "bash": ("/usr/bin/bash", "--posix", ONLY_TOOLS),
    "busybox": ("/usr/bin/busybox", "sh", ONLY_TOOLS + BUSYBOX),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_in_any_sh_it_starts_finds_and_ends_a_server_with_few_tools(lab: Lab, shell: str) -> None:
    path, applet, setup = SHELLS[shell]
    site = Site(lab, path, applet, setup=setup)
    assert [type(one) for one in site.say(protocol.look(""))][1:] == [Directory, Ready]
    server, words = site.started()
    assert words == f"{HOME}/{VENV}/bin/jupyter-lab"
    assert (server.directory, server.token, server.origin) == (HOME, TOKEN, "home")
    assert lab.server.run(["curl", "-s", f"http://127.0.0.1:{server.port}/api"]).stdout
    environment = lab.server.host_path(f"/proc/{server.pid}/environ").read_text()
    assert "LC_ALL" not in environment
    assert "SSHVPN" not in environment
    # Of its own session, and the child of nobody who can log out.
    [status] = lab.server.run(["ps", "-o", "sid=,ppid=", str(server.pid)]).stdout.splitlines()
    assert status.split() == [str(server.pid), "1"]
    found = [one for one in site.say(protocol.look("")) if isinstance(one, Server)]
    assert found == [server]
    modes = {
        name.rsplit("/", 1)[-1]: lab.server.run(["stat", "-c", "%a", name]).stdout.strip()
        for name in lab.server.run(["find", f"{HOME}/.local", "-type", "f"]).stdout.splitlines()
    }
    assert {mode for name, mode in modes.items() if name.startswith(("jpserver", str(server.pid)))
            or name.endswith(".log")} == {"600"}, modes  # fmt: skip
    assert not lab.server.exists(STARTING)
    site.stop(server)
    assert [one for one in site.say(protocol.look("")) if isinstance(one, Server)] == []


def test_a_run_time_directory_that_is_open_to_others_is_not_taken(lab: Lab) -> None:
    """Jupyter's page with the token would be open there until it is closed."""
    lab.server.run(["install", "-d", "-m", "755", RUNTIME])
    path, applet, setup = SHELLS["busybox"]
    site = Site(lab, path, applet, setup=setup)
    server, _ = site.started()
    own = f"{HOME}/.local/state/sshvpn/notebooks/jupyter"
    assert lab.server.run(["stat", "-c", "%a", own, RUNTIME]).stdout.split() == ["700", "755"]
    assert lab.server.exists(f"{own}/jpserver-{server.pid}.json")
    assert not [*lab.server.host_path(RUNTIME).iterdir()]
    assert [one for one in site.say(protocol.look("")) if isinstance(one, Server)] == [server]
    site.stop(server)


def test_each_way_takes_the_jupyter_that_it_names(lab: Lab) -> None:
    lab.server.write(f"{HOME}/.profile", "")
    make_venv(lab.server, f"{HOME}/conda/envs/my env")
    lab.server.write(f"{HOME}/conda/envs/empty/bin/python", "")
    lab.server.write(f"{HOME}/.conda/environments.txt", f"{HOME}/conda\n{HOME}/conda/envs/my env\n")
    lab.server.write(f"{HOME}/thesis/x", "")
    site = Site(lab)
    python = f"{HOME}/{VENV}/bin/python"
    for way, words, took in (
        (JupyterWay.VENV, (VENV,), f"{HOME}/{VENV}/bin/jupyter-lab"),
        (JupyterWay.PYTHON, (f"~/{VENV}/bin/python",), f"{python} -m jupyterlab"),
        (JupyterWay.CONDA, ("my env",), f"{HOME}/conda/envs/my env/bin/jupyter-lab"),
        # The words are what they are; one that starts it and waits is its parent.
        (JupyterWay.COMMAND, ("/bin/sh", "-c", '"$0" -m jupyterlab "$@"; exit $?', python), None),
    ):
        server, words_taken = site.started(NotebookWish("thesis", way, words), "thesis")
        assert took in (None, words_taken)
        assert server.directory == f"{HOME}/thesis"
        assert server.origin == "directory"
        site.stop(server)
    for way, word, code in (
        (JupyterWay.VENV, "nowhere", "no_venv"),
        (JupyterWay.CONDA, "nowhere", "no_conda_env"),
        (JupyterWay.CONDA, ".*", "no_conda_env"),
        (JupyterWay.CONDA, "~/conda/envs/empty", "none_in_conda"),
        (JupyterWay.PYTHON, "nowhere", "no_command"),
        (JupyterWay.PYTHON, sys.base_prefix + "/bin/python3", "none_in"),
        (JupyterWay.COMMAND, "$(touch /tmp/was-evaluated)", "no_command"),
    ):
        assert site.problem(NotebookWish("", way, (word,))).code == code
    assert not lab.server.exists("/tmp/was-evaluated")  # noqa: S108


# Laid out and worded as conda does it (conda/shell/etc/profile.d/conda.sh, and what `conda
# shell.posix activate` prints); the activation script as packages of compilers have it.
CONDA = {
    "conda-meta/history": "",
    "etc/profile.d/conda.sh": """\
export CONDA_EXE='{root}/bin/conda'
export _CE_M=''
export _CE_CONDA=''
__conda_exe() (
    "$CONDA_EXE" $_CE_M $_CE_CONDA "$@"
)
__conda_activate() {{
    \\local ask_conda
    ask_conda="$(PS1="${{PS1:-}}" __conda_exe shell.posix "$@")" || \\return
    \\eval "$ask_conda"
}}
conda() {{
    case "${{1-__missing__}}" in
        activate|deactivate) __conda_activate "$@" ;;
        *) __conda_exe "$@" ;;
    esac
}}
""",
    "bin/conda": """\
#!/bin/sh
[ "$1 $2" = "shell.posix activate" ] || exit 2
cat <<END
PS1='(my env) '
export PATH='$3/bin:$PATH'
export CONDA_PREFIX='$3'
export CONDA_SHLVL='1'
export CONDA_DEFAULT_ENV='my env'
. "$3/etc/conda/activate.d/compilers.sh"
END
""",
}
COMPILERS = """\
#!/bin/bash
function _tc_activation() {
  local names=(cc "c++")
  export COMPILER="${names[1]}"
}
_tc_activation
"""


@pytest.mark.parametrize("kind", ["conda", "micromamba"])
def test_a_conda_environment_is_activated_as_conda_does_it(lab: Lab, kind: str) -> None:
    root = f"{HOME}/miniconda3" if kind == "conda" else f"{HOME}/micromamba"
    prefix = f"{root}/envs/my env"
    make_venv(lab.server, prefix)
    lab.server.run(["rm", f"{prefix}/etc"])  # the tests' own
    for name, text in CONDA.items() if kind == "conda" else ():
        lab.server.write(f"{root}/{name}", text.format(root=root), mode=0o755)
    lab.server.write(f"{prefix}/conda-meta/history", "")
    lab.server.write(f"{prefix}/etc/conda/activate.d/compilers.sh", COMPILERS)
    lab.server.write(f"{HOME}/.profile", "")
    site = Site(lab, path="/usr/bin:/bin")
    server, words = site.started(NotebookWish("", JupyterWay.CONDA, ("my env",)))
    assert words == f"{prefix}/bin/jupyter-lab"
    data = lab.server.host_path(f"/proc/{server.pid}/environ").read_text()
    has = dict(one.split("=", 1) for one in data.split("\0") if "=" in one)
    assert (has["CONDA_PREFIX"], has["COMPILER"]) == (prefix, "c++")
    assert has["PATH"].split(":").count(f"{prefix}/bin") == 1
    assert has["PATH"].startswith(f"{prefix}/bin:")
    assert has.get("CONDA_DEFAULT_ENV") == ("my env" if kind == "conda" else None)
    assert lab.server.read(server.log).count("_tc_activation") == 0
    site.stop(server)


@pytest.mark.parametrize("kind", ["jupyter lab", "python3 -m jupyterlab"])
def test_without_a_command_of_its_own_the_other_ways_to_start_it_are_found(
    lab: Lab, kind: str
) -> None:
    program = f"{HOME}/bin/{kind.partition(' ')[0]}"
    # jupyter looks for its subcommands beside itself, so it is one of an environment.
    begins = "-m jupyter" if kind == "jupyter lab" else ""
    script = f'#!/bin/sh\nexec "{HOME}/{VENV}/bin/python" {begins} "$@"\n'
    lab.server.write(program, script, mode=0o755)
    lab.server.write(f"{HOME}/.profile", 'PATH="$HOME/bin:$PATH"; export PATH\n')
    site = Site(lab)
    server, words = site.started()
    assert words == kind.replace(kind.partition(" ")[0], program, 1)
    site.stop(server)


def test_where_only_an_interactive_shell_has_it_that_is_asked(lab: Lab) -> None:
    lab.server.write(f"{HOME}/.profile", ". ~/.bashrc\n")
    guard = "case $- in *i*) ;; *) return ;; esac\n"
    lab.server.write(f"{HOME}/.bashrc", f"echo NOISE\n{guard}{PATH_LINE}")
    server, words = Site(lab, login_shell="/bin/bash").started()
    assert words == f"{HOME}/{VENV}/bin/jupyter-lab"
    Site(lab).stop(server)


def test_without_jupyter_it_says_so(lab: Lab) -> None:
    lab.server.write(f"{HOME}/.profile", "")
    assert Site(lab).problem().code == "none"
    assert not lab.server.exists(STARTING)


def test_a_login_shell_that_never_ends_is_given_up(lab: Lab) -> None:
    lab.server.write(f"{HOME}/.profile", "while :; do sleep 60; done\n")
    assert Site(lab).problem().code == "no_login_shell"
    assert not lab.server.exists(STARTING)


def test_of_two_that_start_at_once_one_does_and_the_other_finds_it(lab: Lab) -> None:
    site = Site(lab)
    order = protocol.look("") + protocol.start(NotebookWish(), TOKEN, shared=True)
    both = [site.begin(order), site.begin(order)]
    said = [message for one in both for message in site.end(*one)]
    servers = [one for one in said if isinstance(one, Server)]
    assert len(servers) == 2, (said, site.raw)
    assert servers[0] == servers[1]
    assert len([one for one in said if isinstance(one, Took)]) == 1
    site.stop(servers[0])


@pytest.mark.parametrize("shell", SHELLS)
def test_what_does_not_become_a_jupyter_is_ended_and_in_nobody_s_way(lab: Lab, shell: str) -> None:
    path, applet, setup = SHELLS[shell]
    site = Site(lab, path, applet, setup=setup)
    wish = NotebookWish("", JupyterWay.COMMAND, ("/bin/sh", "-c", "echo NONE; sleep 98765; exit"))
    said = site.start(wish, within_s=1)
    assert said[-2] == LogLine("NONE"), (said, site.raw)
    assert isinstance(said[-1], Problem)
    assert said[-1].code == "silent"
    assert not lab.server.exists(STARTING)
    assert not [line for line in lab.server.processes().values() if "98765" in line]
    server, _ = site.started()
    site.stop(server)


def test_a_jupyter_that_is_slow_is_waited_for(lab: Lab) -> None:
    python = f"{HOME}/{VENV}/bin/python"
    words = ("/bin/sh", "-c", 'sleep 3; exec "$0" -m jupyterlab "$@"', python)
    site = Site(lab)
    said = site.start(NotebookWish("", JupyterWay.COMMAND, words), within_s=1)
    assert isinstance(said[-1], Server), (said, site.raw)
    site.stop(said[-1])


def test_one_that_was_killed_while_it_started_is_in_nobody_s_way(lab: Lab) -> None:
    lab.server.write(f"{HOME}/.profile", "sleep 20\n")
    site = Site(lab)
    child, _ = site.begin(protocol.look(""), protocol.start(NotebookWish(), TOKEN, shared=True))
    wait_until(lambda: lab.server.exists(f"{STARTING}/starter"))
    starter = int(lab.server.read(f"{STARTING}/starter").split()[0])
    lab.server.kill(starter, signal.SIGKILL)
    child.kill_tree()
    child.wait(10)
    for pipe in (child.stdin, child.stdout, child.stderr):  # the login shell sleeps on
        assert pipe is not None
        pipe.close()
    assert lab.server.exists(STARTING)
    lab.server.write(f"{HOME}/.profile", PATH_LINE)
    said = site.say(protocol.look(""), protocol.start(NotebookWish(), TOKEN, shared=True),
                    protocol.start(NotebookWish(), TOKEN, shared=True))  # fmt: skip
    (server,) = [one for one in said if isinstance(one, Server)]
    site.stop(server)


def test_a_file_of_a_server_that_is_gone_is_no_server(lab: Lab) -> None:
    site = Site(lab)
    server, _ = site.started()
    name = f"{RUNTIME}/jpserver-{server.pid}.json"
    record = lab.server.read(name)
    lab.server.kill(server.pid)
    # Its number is another's by now, who does not hold the port; or nobody's.
    sleeper = lab.server.popen(["sleep", "60"])
    find = ["pgrep", "-n", "sleep"]
    inner = int(wait_until(lambda: lab.server.run(find, check=False).stdout))
    for pid in (inner, 99999):
        lab.server.write(f"{RUNTIME}/jpserver-{pid}.json", record)
    lab.server.write(f"{RUNTIME}/jpserver-x.json", record)
    said = site.say(protocol.look(""), protocol.stop([inner, server.pid]))
    assert [type(one) for one in said] == [protocol.Hello, Directory, Ready, Bye]
    assert sleeper.poll() is None
    sleeper.end()


def test_the_log_of_one_that_dies_is_told(lab: Lab) -> None:
    site = Site(lab)
    words = ("/bin/sh", "-c", "echo first; echo the last word >&2; exit 3")
    said = site.start(NotebookWish("", JupyterWay.COMMAND, words))
    assert said[-3:-1] == [LogLine("first"), LogLine("the last word")]
    assert isinstance(said[-1], Problem)
    assert said[-1].code == "died"
    assert lab.server.read(said[-1].text) == "first\nthe last word\n"
    assert not lab.server.exists(STARTING)
