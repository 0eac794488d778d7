"""Words from outside never become an option of ssh, nor reach a shell; host keys are checked."""

from __future__ import annotations

import pytest

from tests.e2e.office import HOME, Office
from tests.lab import wait_until

MARK = f"{HOME}/owned"
WORDS = [
    f"-oProxyCommand=touch {MARK}",
    f"-E{MARK}",
    f"--host=-oProxyCommand=touch {MARK}",
    f"server;touch {MARK}",
    f"server$(touch {MARK})",
    f"server`touch {MARK}`",
    f"server|touch {MARK}",
    f"server\ntouch {MARK}",
    f"'; touch {MARK}; '@server",
    f'"$(touch {MARK})"@server',
    "-l@server",
    "alice@-oProxyCommand=x",
    "%h@server",
    "server%d",
    "alice@ser ver",
    "ssh://-oProxyCommand=x/",
    f"ssh://alice%3btouch@server/{MARK}",
    f"ssh://%2doProxyCommand=touch%20{MARK}@server",
]


@pytest.fixture
def proxied(office: Office) -> Office:
    """Return the office; alice's ssh_config has a ProxyCommand, which a shell runs."""
    office.ssh_config("Host *\n  ProxyCommand sh -c 'exec nc %h %p # %r %n'\n")
    return office


@pytest.mark.parametrize("word", WORDS)
def test_a_host_is_no_option_and_no_shell_word(proxied: Office, word: str) -> None:
    proxied.refused(2, "forward", "--", word, "9999:8888")
    assert not proxied.gateway.exists(MARK)


@pytest.mark.parametrize("word", WORDS)
def test_a_jump_is_no_option_and_no_shell_word(proxied: Office, word: str) -> None:
    proxied.refused(2, "forward", f"-J{word}", "server", "9999:8888")
    assert not proxied.gateway.exists(MARK)


@pytest.mark.parametrize("word", WORDS)
def test_what_a_profile_says_is_no_option_and_no_shell_word(proxied: Office, word: str) -> None:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    proxied.config(f'[forwards.nb]\nhost = "{escaped}"\nspecs = ["9999:8888"]\n')
    told = proxied.refused(2, "forward", "nb")
    assert "config.toml:2:" in told
    assert not proxied.gateway.exists(MARK)


@pytest.mark.parametrize(
    "spec",
    [
        "9999:-oProxyCommand=x:80",
        f"9999:$(touch {MARK}):80",
        f"9999:a\n-R1:{MARK}:80",
        "9999:a b:80",
        "$(id):8888",
        "-9999:8888",
        "9999:8888:",
        "/run/a\n.sock:80",
    ],
)
def test_a_spec_is_checked_before_anything_is_started(office: Office, spec: str) -> None:
    office.refused(2, "forward", "server", "-L", spec)
    office.refused(2, "forward", "server", "-R", spec)
    assert not office.gateway.exists(MARK)


@pytest.mark.parametrize(
    "option",
    [
        "StrictHostKeyChecking=no",
        "stricthostkeychecking no",
        " StrictHostKeyChecking = no",
        "LocalForward=1 localhost:1",
        "ControlPath=/tmp/x",
        "Tunnel=yes",
        "NoHostAuthenticationForLocalhost=yes",
        "User=x\nStrictHostKeyChecking=no",
        'User="x\nProxyCommand=x"',
    ],
)
def test_what_sshvpn_owns_cannot_be_set(office: Office, option: str) -> None:
    office.refused(2, "forward", "-b", "-o", option, "server", "9999:8888")
    office.config(f"[forwards.nb]\nhost = 'server'\nspecs = ['1:1']\nssh_options = {{ "
                  f"{option.split('=', 1)[0].strip().split()[0]} = 'no' }}\n")  # fmt: skip
    if not option.startswith("User"):
        office.refused(2, "forward", "-b", "nb")


def test_a_configuration_that_others_can_write_is_refused(office: Office) -> None:
    office.config('default_host = "server"\n')
    office.gateway.run(["chmod", "666", f"{HOME}/.config/sshvpn/config.toml"])
    told = office.refused(2, "forward", "9999:8888")
    assert "chmod" in told


def test_nothing_is_imported_from_where_it_is_started(office: Office) -> None:
    trap = f"open({MARK!r}, 'w').close()\n"
    for module in ("asyncio", "json", "click", "logging", "socket", "paramiko", "netifaces"):
        office.gateway.write(f"{HOME}/trap/{module}.py", trap)
    script = f"cd {HOME}/trap && sshvpn forward -b server 9999:8888"
    bin_dir = office.lab.sshvpn_argv()[0].rpartition("/")[0]
    office.gateway.run(["sh", "-c", f"PATH={bin_dir}:$PATH; {script}"])
    assert not office.gateway.exists(MARK)
    office.sshvpn("down")


def test_a_key_that_a_known_host_does_not_have_is_refused_whatever_the_config_says(
    office: Office, engine: str
) -> None:
    other = office.lab.server.sshd.known_hosts(["elsewhere"]).split()[2]
    office.gateway.write(f"{HOME}/.ssh/known_hosts", f"server ssh-ed25519 {other[:-8]}AAAAAAA=\n")
    office.ssh_config("Host *\n  StrictHostKeyChecking no\n  UpdateHostKeys no\n")
    office.refused(5, "forward", "-b", "server", "9999:8888", "--engine", engine)
    wait_until(lambda: office.sessions() == 0, what="the server holds no connection")
