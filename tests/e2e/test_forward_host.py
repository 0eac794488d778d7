"""Which host is meant, and that all of alice's ssh configuration counts, but for what is ours.

gateway ──┬──────────────── server:22, server:2222
          └─── jump:22 ─────┘
"""

from __future__ import annotations

import re

from tests.e2e.office import HOME, Office
from tests.lab import wait_until

EVERYTHING = """
Host *
    LocalForward 5551 localhost:1
    LocalForward 5552 localhost:1
    RemoteForward 5553 localhost:1
    DynamicForward 5554
    ExitOnForwardFailure yes
    GatewayPorts yes
    RemoteCommand touch ran-there
    RequestTTY force
    PermitLocalCommand yes
    LocalCommand touch ran-here
    ControlMaster auto
    ControlPath ~/.ssh/master
    ControlPersist yes
    Tunnel yes
    ForkAfterAuthentication yes
    StdinNull yes
    SessionType default
    ForwardX11 yes
    ForwardAgent yes
    LogLevel QUIET
    BatchMode yes
    ServerAliveInterval 7
    Ciphers aes256-ctr
"""


def peer_of_last_login(office: Office) -> str:
    found = re.findall(r"Accepted publickey for \S+ from (\S+) port", office.server.sshd.log)
    return str(found[-1])


def test_host_in_every_form(office: Office, engine: str) -> None:
    second = office.server.start_sshd(2222)
    office.web()
    office.lab.know(office.server.sshd, second)
    forms = ["alice@server", "2001:db8:113::20", "ssh://alice@[2001:db8:113::20]:2222"]
    for number, host in enumerate(forms):
        logged = second.log.count("Accepted publickey")
        office.forward("--engine", engine, host, f"{9001 + number}:8888")
        assert "notebook" in office.fetch(f"http://localhost:{9001 + number}/"), host
        went_there = second.log.count("Accepted publickey") > logged
        assert went_there is (":2222" in host), host
    assert {record["host"] for record in office.status()} == set(forms)
    office.sshvpn("down", "--all")


def test_an_alias_with_include_match_and_a_jump_host(office: Office, engine: str) -> None:
    jump = office.lab.jump
    office.web()
    office.ssh_config("Include more/*.conf\nHost gpu\n    User nobody\n")
    office.gateway.write(
        f"{HOME}/.ssh/more/gpu.conf",
        f"Host gpu\n    HostName {office.server.address}\n    User alice\n"
        'Match originalhost gpu exec "test -e /home/alice/outside"\n    ProxyJump jump\n'
        "Match all\n",
    )
    office.forward("--engine", engine, "gpu", "9001:8888")
    assert "notebook" in office.fetch("http://localhost:9001/")
    assert peer_of_last_login(office) == "203.0.113.10"
    office.sshvpn("down")
    office.gateway.write(f"{HOME}/outside", "")
    office.forward("--engine", engine, "gpu", "9002:8888")
    assert "notebook" in office.fetch("http://localhost:9002/")
    assert peer_of_last_login(office) == jump.address
    office.sshvpn("down")
    wait_until(lambda: not jump.sshd.sessions())


def test_a_profile_beats_an_alias(office: Office) -> None:
    office.web()
    office.ssh_config("Host notebook\n    HostName 192.0.2.1\nHost gpu\n    HostName server\n")
    office.config(
        '[forwards.notebook]\nhost = "gpu"\nspecs = ["9999:8888", "9998:8888"]\n'
        'ssh_options = { ConnectTimeout = "5" }\n'
    )
    office.forward("notebook")
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert "notebook" in office.fetch("http://localhost:9998/")
    assert {record["name"] for record in office.status()} == {"notebook"}
    office.sshvpn("down", "notebook")
    # What is typed goes before what the profile says.
    office.forward("notebook", "9997:8888")
    assert office.listening() == {"127.0.0.1:9997", "[::1]:9997"}
    office.sshvpn("down", "notebook")


def test_the_host_that_is_not_said(office: Office) -> None:
    office.web()
    for name in ("one", "two", "three"):
        office.ssh_config(
            (office.gateway.read(f"{HOME}/.ssh/config") if name != "one" else "")
            + f"Host {name}\n    HostName server\n"
        )
    office.config('default_host = "three"\n')
    two = {"SSHVPN_HOST": "two"}
    for expected, words, env in (
        ("one", ["--host", "one"], two),
        ("two", [], two),
        ("three", [], {}),
    ):
        office.forward("9999:8888", *words, env=env)
        assert office.only()["host"] == expected
        assert office.sshvpn("down").stdout == f"{expected} is down\n"


def test_no_host_names_the_candidates(office: Office) -> None:
    said = office.refused(2, "forward", "9999:8888")
    assert "HOST" in said
    office.config('[forwards.notebook]\nhost = "gpu"\nspecs = ["1:2"]\n[tunnels.work]\nhost="w"\n')
    said = office.refused(2, "forward", "9999:8888")
    assert "notebook, work" in said


def test_two_hosts_are_one_too_many(office: Office) -> None:
    for words in (
        ["one", "two", "8888"],
        ["one", "--host", "two", "8888"],
        ["8888", "one", "9999:1", "ssh://two"],
    ):
        said = office.refused(2, "forward", *words)
        assert "one, two" in said or "one, ssh://two" in said


def test_nothing_of_the_users_configuration_disturbs(office: Office) -> None:
    office.web()
    office.gateway.tcp_server(5551, "127.0.0.1")
    office.start(["ssh", "-M", "-S", f"{HOME}/.ssh/master", "-N", "server"])
    wait_until(lambda: office.gateway.exists(f"{HOME}/.ssh/master"))
    office.ssh_config(EVERYTHING)
    before = office.sessions()
    office.forward("server", "9999:8888", "-R", "5555:8888")
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert office.sessions() == before + 1, "a connection of our own, not the user's master"
    assert office.listening() == {"127.0.0.1:5551", "127.0.0.1:9999", "[::1]:9999"}
    assert office.listening(office.server) >= {"127.0.0.1:5555"}
    assert not any(":5553" in place for place in office.listening(office.server))
    (ssh,) = [line for line in office.gateway.processes().values() if "ssh -N -T" in line]
    assert "Ciphers=" not in ssh, "the user's choice of ciphers stands"
    assert "ServerAliveInterval=" not in ssh
    assert not office.gateway.exists(f"{HOME}/ran-here")
    assert not office.server.exists(f"{HOME}/ran-there")
    office.sshvpn("down")
    office.gateway.run(["ssh", "-F", "none", "-S", f"{HOME}/.ssh/master", "-O", "exit", "x"])


def test_an_address_family_is_for_the_connection_and_not_for_the_listeners(
    office: Office, engine: str
) -> None:
    office.web()
    for family, peer in (("inet", "203.0.113.10"), ("inet6", "2001:db8:113::10")):
        office.ssh_config(f"Host *\n    AddressFamily {family}\n")
        office.forward("--engine", engine, "server", "9999:8888", "192.168.77.1:9998:8888")
        assert peer_of_last_login(office) == peer
        for url in ("http://127.0.0.1:9999/", "http://[::1]:9999/", "http://192.168.77.1:9998/"):
            assert "notebook" in office.fetch(url)
        office.sshvpn("down")


def test_errors_are_understood_though_the_user_wants_ssh_quiet(office: Office) -> None:
    office.ssh_config("Host *\n    LogLevel QUIET\n    BatchMode yes\n")
    said = office.refused(5, "forward", "bob@server", "9999:8888")
    assert "permission denied" in said


def test_what_is_typed_for_ssh_is_handed_to_it(office: Office, engine: str) -> None:
    office.web()
    second = office.server.start_sshd(2222)
    office.lab.know(office.server.sshd, second)
    office.gateway.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{HOME}/spare"])
    spare = office.gateway.read(f"{HOME}/spare.pub")
    office.server.write(f"{HOME}/.ssh/authorized_keys", spare)
    try:
        no_agent = {"SSH_AUTH_SOCK": None}
        words = ["--engine", engine, "alice@server", "9999:8888"]
        office.refused(5, "forward", *words, env=no_agent)
        office.gateway.write(f"{HOME}/other_config", "Host server\n    Port 2222\n")
        options = ["-i", "spare", "-F", "other_config", "-o", "ConnectTimeout=5"]
        office.forward(*words, *options, env=no_agent)
        assert "notebook" in office.fetch("http://localhost:9999/")
        assert "Accepted publickey" in second.log
        office.sshvpn("down")
        logged = second.log.count("Accepted publickey")
        office.forward(*words, "-i", "spare", "-o", "Port=2222", env=no_agent)
        assert second.log.count("Accepted publickey") == logged + 1
        office.sshvpn("down")
    finally:
        office.server.authorize()


def test_a_jump_host_that_is_typed(office: Office, engine: str) -> None:
    jump = office.lab.jump
    office.web()
    office.forward("--engine", engine, "-J", "alice@jump", "server", "9999:8888")
    assert "notebook" in office.fetch("http://localhost:9999/")
    assert peer_of_last_login(office) in (jump.address, jump.address6)
    office.sshvpn("down")
    wait_until(lambda: not jump.sshd.sessions())
    assert office.pids("ssh ") == []


def test_an_option_that_is_ours_cannot_be_set(office: Office) -> None:
    for option in ("StrictHostKeyChecking=no", "LocalForward=1 localhost:1", "tunnel yes",
                   "ControlPath=/x", "RemoteCommand=id", "BatchMode=no"):  # fmt: skip
        said = office.refused(2, "forward", "server", "9999:8888", "-o", option)
        assert re.split("[= ]", option)[0] in said


def test_a_wrong_ssh_configuration_is_told_with_file_and_line(office: Office) -> None:
    office.ssh_config("Host server\n    Wibble yes\n")
    said = office.refused(2, "forward", "-b", "server", "9999:8888")
    assert f"{HOME}/.ssh/config:2: " in said
    assert "ibble" in said
