"""Both engines log in as ssh does, and say in the same words why they did not."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sshvpn.errors import (
    AuthenticationError,
    ConfigError,
    HostKeyChangedError,
    HostKeyUnknownError,
    LoginNeededError,
    ResolveError,
    Retry,
    SshvpnError,
    UnreachableError,
)
from sshvpn.model import TcpEndpoint
from tests.contract.site import (
    Person,
    Site,
    agent,
    digest,
    echo,
    exchange,
    local,
    target,
    through_a_proxy,
)
from tests.contract.sshd import free_port, make_key


def keygen(*words: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True)


async def works(site: Site, prompter: Person | None = None) -> None:
    """Log in and carry something."""
    async with target(echo) as there, site.connected(prompter) as connection:
        where = await connection.open_listener(local(there))
        assert await exchange(where, b"through") == b"through"


async def refused(site: Site, prompter: Person | None = None) -> SshvpnError:
    """Return why there is no login."""
    with pytest.raises(SshvpnError) as caught:
        async with site.connected(prompter):
            pass
    assert caught.value.message
    return caught.value


# Keys ---------------------------------------------------------------------------------------


async def test_a_key_file_logs_in(site: Site) -> None:
    await site.engine.check(site.profile())
    await works(site)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
async def test_keys_of_all_kinds_log_in(site: Site, kind: str) -> None:
    key = make_key(site.directory / kind, kind)
    site.sshd.authorize(key)
    site.config["IdentityFile"] = str(key)
    await works(site)


async def test_a_key_of_the_agent_logs_in(site: Site) -> None:
    with agent(site.directory, [site.key]) as path:
        site.key.unlink()  # its public half stays, and names the agent's key
        site.config["IdentityAgent"] = str(path)
        await works(site)


async def test_the_agents_other_keys_are_offered_unless_identities_only(site: Site) -> None:
    with agent(site.directory, [site.key]) as path:
        stranger = make_key(site.directory / "stranger")
        site.config |= {"IdentityAgent": str(path), "IdentityFile": str(stranger)}
        assert isinstance(await refused(site), AuthenticationError)
        site.config["IdentitiesOnly"] = "no"
        await works(site)


async def test_the_agent_of_the_environment_is_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(site.directory, [site.key]) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        site.key.unlink()
        del site.config["IdentityAgent"]
        await works(site)


async def test_all_key_files_are_tried_in_order(site: Site) -> None:
    stranger = make_key(site.directory / "stranger")
    site.config["IdentityFile"] = str(stranger)
    site.more_config = f"  IdentityFile {site.directory}/none\n  IdentityFile {site.key}\n"
    await works(site)


async def test_a_certificate_logs_in(site: Site) -> None:
    authority, user = make_key(site.directory / "ca"), make_key(site.directory / "certified")
    keygen("-s", authority, "-I", "test", "-n", site.sshd.user, f"{user}.pub")
    site.sshd.authorize(authority, "cert-authority")
    site.config["IdentityFile"] = str(user)
    await works(site)
    moved = shutil.move(f"{user}-cert.pub", site.directory / "elsewhere.pub")
    assert isinstance(await refused(site), AuthenticationError)
    site.config["CertificateFile"] = str(moved)
    await works(site)


async def test_a_wrong_key_is_refused_for_good(site: Site) -> None:
    site.config["IdentityFile"] = str(make_key(site.directory / "stranger"))
    error = await refused(site)
    assert type(error) is AuthenticationError
    assert (error.retry, error.exit_code) == (Retry.NEVER, 5)
    assert error.hint


async def test_a_key_that_others_can_read_is_not_used(site: Site) -> None:
    site.key.chmod(0o644)
    error = await refused(site)
    assert isinstance(error, AuthenticationError)
    assert "chmod 600" in error.hint


# Passphrases ---------------------------------------------------------------------------------


@pytest.fixture
def locked(site: Site) -> Site:
    key = make_key(site.directory / "locked", passphrase="open sesame")
    site.sshd.authorize(key)
    site.config["IdentityFile"] = str(key)
    return site


async def test_the_passphrase_of_a_key_is_asked_for_once(locked: Site) -> None:
    person = Person(passphrase="open sesame")
    await works(locked, person)
    assert len(person.asked) == 1
    assert str(locked.directory / "locked") in person.asked[0]


async def test_without_anybody_to_ask_a_locked_key_needs_a_login(locked: Site) -> None:
    error = await refused(locked)
    assert type(error) is LoginNeededError
    assert error.retry is Retry.ON_LOGIN


async def test_a_reconnect_asks_nobody(locked: Site) -> None:
    async with locked.connected(Person(passphrase="open sesame")):
        pass
    try:
        async with locked.connected(None):
            pass
    except LoginNeededError:
        assert locked.engine.name == "openssh"  # ssh keeps no key that it unlocked


async def test_a_wrong_passphrase_leaves_the_key_locked(locked: Site) -> None:
    person = Person(passphrase="close sesame")
    assert isinstance(await refused(locked, person), LoginNeededError)
    assert len(person.asked) == 3


async def test_giving_no_answer_ends_the_login(locked: Site) -> None:
    assert isinstance(await refused(locked, Person(passphrase=None)), LoginNeededError)


async def test_a_locked_key_that_the_server_does_not_take_is_not_asked_for(site: Site) -> None:
    key = make_key(site.directory / "stranger", passphrase="open sesame")
    site.config["IdentityFile"] = str(key)
    person = Person(passphrase="open sesame")
    assert isinstance(await refused(site, person), AuthenticationError)
    assert person.asked == []


# Host keys ------------------------------------------------------------------------------------


async def test_an_unknown_host_is_refused_when_nobody_can_be_asked(site: Site) -> None:
    site.known_hosts.write_text("")
    error = await refused(site)
    assert type(error) is HostKeyUnknownError
    assert (error.retry, error.exit_code) == (Retry.NEVER, 5)
    assert site.known_hosts.read_text() == ""


@pytest.mark.parametrize("hashed", ["yes", "no"])
async def test_an_unknown_host_that_a_person_accepts_is_known_from_then_on(
    site: Site, hashed: str
) -> None:
    site.known_hosts.unlink()
    site.config["HashKnownHosts"] = hashed
    person = Person(**{"continue connecting": "yes"})
    await works(site, person)
    assert len(person.asked) == 1
    assert "SHA256:" in person.asked[0]
    assert ("127.0.0.1" in site.known_hosts.read_text()) is (hashed == "no")
    await works(site)


async def test_an_unknown_host_that_a_person_does_not_accept_is_refused(site: Site) -> None:
    site.known_hosts.write_text("")
    error = await refused(site, Person(**{"continue connecting": "no"}))
    assert isinstance(error, HostKeyUnknownError)
    assert site.known_hosts.read_text() == ""


@pytest.mark.parametrize("with_person", [True, False])
async def test_a_changed_host_key_is_refused_whoever_is_there(
    site: Site, *, with_person: bool
) -> None:
    other = make_key(site.directory / "other").with_suffix(".pub").read_text()
    site.known_hosts.write_text(f"# a comment\n[127.0.0.1]:{site.sshd.port} {other}")
    person = Person(**{"": "yes"}) if with_person else None
    error = await refused(site, person)
    assert type(error) is HostKeyChangedError
    assert error.retry is Retry.NEVER
    assert str(site.known_hosts) in error.message
    assert "2" in error.message.partition(str(site.known_hosts))[2]
    assert "ssh-keygen" in error.hint


async def test_a_hashed_entry_is_found(site: Site) -> None:
    keygen("-H", "-f", site.known_hosts)
    assert "127.0.0.1" not in site.known_hosts.read_text()
    await works(site)


async def test_a_host_is_known_by_its_alias(site: Site) -> None:
    site.known_hosts.write_text(site.sshd.known_hosts("the-box"))
    site.config["HostKeyAlias"] = "the-box"
    await works(site)


async def test_a_host_that_is_known_without_its_port_is_known(site: Site) -> None:
    site.known_hosts.write_text(site.sshd.known_hosts("127.0.0.1"))
    await works(site)


async def test_the_server_is_asked_for_the_kind_of_key_that_is_known(site: Site) -> None:
    site.known_hosts.write_text(site.sshd.known_hosts(kind="ecdsa"))
    await works(site)


async def test_a_second_file_of_known_hosts_is_read(site: Site) -> None:
    second = site.directory / "second"
    second.write_text(site.known_hosts.read_text())
    site.known_hosts.write_text("")
    site.config["UserKnownHostsFile"] = f"{site.known_hosts} {second}"
    await works(site)


async def test_a_revoked_host_key_is_refused(site: Site) -> None:
    line = site.sshd.known_hosts()
    site.known_hosts.write_text(f"{line}@revoked {line}")
    assert isinstance(await refused(site), HostKeyChangedError)


# The way there ----------------------------------------------------------------------------------


async def test_nobody_listens_there(site: Site) -> None:
    site.config["Port"] = str(free_port())
    error = await refused(site)
    assert type(error) is UnreachableError
    assert (error.retry, error.exit_code) == (Retry.FOREVER, 6)


async def test_a_name_that_does_not_resolve(site: Site) -> None:
    site.config["HostName"] = "no-such-host.invalid"
    assert type(await refused(site)) is ResolveError


async def test_something_else_than_ssh_answers(site: Site) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with target(web) as there:
        assert isinstance(there, TcpEndpoint)
        site.config["Port"] = str(there.port)
        error = await refused(site)
    assert isinstance(error, UnreachableError)


async def test_a_server_that_says_nothing_is_given_up(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site.config |= {"Port": str(silent.getsockname()[1]), "ConnectTimeout": "1"}
        error = await refused(site)
    assert isinstance(error, UnreachableError)


async def test_a_login_that_is_cancelled_leaves_nothing(site: Site) -> None:
    ends: asyncio.Queue[bytes] = asyncio.Queue()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.put(b"accepted")
        await ends.put(await reader.read(-1))
        writer.close()

    async with target(silent) as there:
        assert isinstance(there, TcpEndpoint)
        site.config["Port"] = str(there.port)
        login = asyncio.create_task(site.engine.connect(site.profile(), None))
        await ends.get()
        login.cancel()
        with pytest.raises(asyncio.CancelledError):
            await login
        await ends.get()


async def test_a_login_that_is_cancelled_while_a_person_is_asked_ends(locked: Site) -> None:
    class Slow(Person):
        asking = asyncio.Event()

        async def ask(self, prompt: str, *, echo: bool) -> str | None:
            self.asking.set()
            await asyncio.Event().wait()
            return await super().ask(prompt, echo=echo)

    person = Slow()
    login = asyncio.create_task(locked.engine.connect(locked.profile(), person))
    await person.asking.wait()
    login.cancel()
    with pytest.raises(asyncio.CancelledError):
        await login


async def test_a_proxy_command_is_used(site: Site) -> None:
    site.config |= through_a_proxy(site)
    await works(site)


async def test_a_proxy_command_that_fails_says_so(site: Site) -> None:
    site.config["ProxyCommand"] = "echo the proxy is on fire >&2; exit 1"
    error = await refused(site)
    assert error.retry is Retry.FOREVER


async def test_a_jump_host_is_used(site: Site) -> None:
    jump = "".join(f"  {key} {value}\n" for key, value in site.config.items())
    site.more_config = f"  ProxyJump jump\nHost jump\n{jump}"
    await site.engine.check(site.profile())
    async with target(digest) as there, site.connected() as connection:
        where = await connection.open_listener(local(there))
        assert len(await exchange(where, b"through" * 100_000)) == 64
    assert site.sshd.log.count("Accepted publickey") == 2


async def test_a_jump_host_whose_key_is_unknown_is_refused(site: Site) -> None:
    (site.directory / "nobody").write_text("")
    config = {**site.config, "UserKnownHostsFile": str(site.directory / "nobody")}
    jump = "".join(f"  {key} {value}\n" for key, value in config.items())
    site.more_config = f"  ProxyJump jump\nHost jump\n{jump}"
    assert isinstance(await refused(site), HostKeyUnknownError)


async def test_a_wrong_configuration_is_told_with_its_line(site: Site) -> None:
    site.config["Frobnicate"] = "yes"
    with pytest.raises(ConfigError) as caught:
        await site.engine.check(site.profile())
    assert f"{site.directory / 'ssh_config'}:9: " in caught.value.message


async def test_a_changed_port_in_the_configuration_is_read_at_the_next_login(site: Site) -> None:
    port, site.config["Port"] = site.config["Port"], str(free_port())
    assert isinstance(await refused(site), UnreachableError)
    site.config["Port"] = port
    await works(site)


async def test_nothing_is_written_to_the_terminal(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    await works(site)
    site.known_hosts.write_text("")
    await refused(site)
    assert capfd.readouterr() == ("", "")
