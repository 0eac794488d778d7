"""What OpenSSH printed, recorded, and what it means: class, retry, exit code."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from sshvpn import errors
from sshvpn.errors import Retry
from sshvpn.lifecycle import (
    AwaitLogin,
    Connect,
    Connected,
    Disconnect,
    Failed,
    GiveUp,
    Life,
    SetTimer,
    Start,
    TimerFired,
    WatchWay,
    step,
)
from sshvpn.model import State
from sshvpn.system.openssh.stderr import DeviceRefusedError, classify, is_noise

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:Sa3VH4Ug/O3MxMYNWlLT0BuGXsV2BlThD1SpX9csIek.
Add correct host key in /home/alice/.ssh/known_hosts to get rid of this message.
Offending RSA key in /home/alice/.ssh/known_hosts:3
Host key for server has changed and you have requested strict checking.
Host key verification failed."""

REVOKED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@       WARNING: REVOKED HOST KEY DETECTED!               @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The ED25519 host key for server is marked as revoked.
Host key verification failed."""

CASES = [
    # name, stderr, class, retry, exit code, a word of the message or hint
    ("resolve", "ssh: Could not resolve hostname nosuch.invalid: Temporary failure in name "
     "resolution", errors.ResolveError, Retry.FOREVER, 6, "nosuch.invalid"),
    ("resolve-unknown", "ssh: Could not resolve hostname nosuch: Name or service not known",
     errors.ResolveError, Retry.FOREVER, 6, "nosuch"),
    ("refused", "ssh: connect to host server port 2222: Connection refused",
     errors.UnreachableError, Retry.FOREVER, 6, "connection refused"),
    ("no-route", "ssh: connect to host 10.9.9.9 port 22: No route to host",
     errors.UnreachableError, Retry.FOREVER, 6, "no route"),
    ("net-unreachable", "ssh: connect to host 10.9.9.9 port 22: Network is unreachable",
     errors.UnreachableError, Retry.FOREVER, 6, "unreachable"),
    ("timed-out", "ssh: connect to host 198.51.100.77 port 22: Connection timed out",
     errors.UnreachableError, Retry.FOREVER, 6, "timed out"),
    ("timed-out-macos", "ssh: connect to host 10.9.9.9 port 22: Operation timed out",
     errors.UnreachableError, Retry.FOREVER, 6, "timed out"),
    ("timed-out-newer", "Connection to 10.9.9.9 port 22 timed out",
     errors.UnreachableError, Retry.FOREVER, 6, "timed out"),
    ("one-of-several-addresses",
     "debug1: connect to address 2001:db8::1 port 22: Network is unreachable\n"
     "ssh: connect to host server port 22: Connection refused",
     errors.UnreachableError, Retry.FOREVER, 6, "connection refused"),
    ("banner", "Connection timed out during banner exchange\r\n"
     "Connection to 10.9.9.9 port 22 timed out",
     errors.UnreachableError, Retry.FOREVER, 6, ""),
    ("turned-away", "kex_exchange_identification: banner line 0: Exceeded MaxStartups\n"
     "kex_exchange_identification: Connection closed by remote host",
     errors.UnreachableError, Retry.FOREVER, 6, "MaxStartups"),
    ("penalty", "kex_exchange_identification: banner line 0: Not allowed at this time",
     errors.UnreachableError, Retry.FOREVER, 6, "Not allowed at this time"),
    ("kex-reset", "kex_exchange_identification: read: Connection reset by peer\n"
     "Connection reset by 203.0.113.20 port 22",
     errors.UnreachableError, Retry.FOREVER, 6, "reset by peer"),
    ("jump-unresolved", "ssh: Could not resolve hostname nosuch.invalid: Temporary failure in "
     "name resolution\nkex_exchange_identification: Connection closed by remote host\n"
     "Connection closed by UNKNOWN port 65535",
     errors.ResolveError, Retry.FOREVER, 6, "nosuch.invalid"),
    ("jump-refused", "ssh: connect to host server port 2222: Connection refused\n"
     "kex_exchange_identification: Connection closed by remote host\n"
     "Connection closed by UNKNOWN port 65535",
     errors.UnreachableError, Retry.FOREVER, 6, "connection refused"),
    ("jump-cannot-reach", "channel 0: open failed: connect failed: Connection refused\n"
     "stdio forwarding failed\nConnection closed by UNKNOWN port 65535",
     errors.UnreachableError, Retry.FOREVER, 6, "jump host"),
    ("proxy-absent-bash", "/bin/bash: line 1: cloudflared: command not found\n"
     "kex_exchange_identification: Connection closed by remote host",
     errors.UnreachableError, Retry.FOREVER, 6, "cloudflared: command not found"),
    ("proxy-absent-dash", "sh: 1: exec: /opt/proxy: not found\n"
     "kex_exchange_identification: Connection closed by remote host",
     errors.UnreachableError, Retry.FOREVER, 6, "/opt/proxy: not found"),
    ("jump-loop", "jumphost loop via gate\n"
     "kex_exchange_identification: Connection closed by remote host",
     errors.ConfigError, Retry.NEVER, 2, "loop via gate"),
    ("proxy-command", "kex_exchange_identification: Connection closed by remote host\n"
     "Connection closed by UNKNOWN port 65535",
     errors.UnreachableError, Retry.FOREVER, 6, ""),
    ("keepalive", "Timeout, server 10.9.9.9 not responding.",
     errors.ConnectionLostError, Retry.FOREVER, 6, "10.9.9.9"),
    ("closed-by-server", "Connection to 10.9.9.9 closed by remote host.",
     errors.ConnectionLostError, Retry.FOREVER, 6, "ended"),
    ("broken-pipe", "client_loop: send disconnect: Broken pipe",
     errors.ConnectionLostError, Retry.FOREVER, 6, "Broken pipe"),
    ("read-reset", "Read from remote host 10.9.9.9: Connection reset by peer\r\n"
     "client_loop: send disconnect: Broken pipe",
     errors.ConnectionLostError, Retry.FOREVER, 6, ""),
    ("packet-write", "packet_write_wait: Connection to 10.9.9.9 port 22: Broken pipe",
     errors.ConnectionLostError, Retry.FOREVER, 6, "Broken pipe"),
    ("corrupted", "ssh_dispatch_run_fatal: Connection to 10.9.9.9 port 22: "
     "message authentication code incorrect",
     errors.ConnectionLostError, Retry.FOREVER, 6, "message authentication"),
    ("disconnected", "Received disconnect from 10.9.9.9 port 22:11: shutting down\n"
     "Disconnected from 10.9.9.9 port 22",
     errors.ConnectionLostError, Retry.FOREVER, 6, "shutting down"),
    ("denied", "alice@server: Permission denied (publickey).",
     errors.AuthenticationError, Retry.NEVER, 5, "publickey"),
    ("denied-passwords", "Permission denied, please try again.\n"
     "Permission denied, please try again.\n"
     "alice@server: Permission denied (publickey,password,keyboard-interactive).",
     errors.AuthenticationError, Retry.NEVER, 5, "password"),
    ("denied-no-key-file", "Warning: Identity file /nonexist not accessible: No such file or "
     "directory.\nalice@server: Permission denied (publickey).",
     errors.AuthenticationError, Retry.NEVER, 5, "/nonexist"),
    ("denied-open-key-file", "@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n"
     "Permissions 0644 for '/home/alice/.ssh/id' are too open.\n"
     'Load key "/home/alice/.ssh/id": bad permissions\n'
     "alice@server: Permission denied (publickey).",
     errors.AuthenticationError, Retry.NEVER, 5, "chmod 600"),
    ("too-many-keys", "Received disconnect from 10.9.9.9 port 22:2: Too many authentication "
     "failures\nDisconnected from 10.9.9.9 port 22",
     errors.AuthenticationError, Retry.NEVER, 5, "IdentitiesOnly"),
    ("locked-key", "debug1: Server accepts key: /home/alice/.ssh/id ED25519 SHA256:abc explicit\n"
     "alice@server: Permission denied (publickey).",
     errors.LoginNeededError, Retry.ON_LOGIN, 5, "ssh-add"),
    ("agent-refused", 'sign_and_send_pubkey: signing failed for ED25519 "alice" from agent: '
     "agent refused operation\nalice@server: Permission denied (publickey).",
     errors.LoginNeededError, Retry.ON_LOGIN, 5, "unlock"),
    ("host-key-changed", CHANGED, errors.HostKeyChangedError, Retry.NEVER, 5,
     "ssh-keygen -R server"),
    ("host-key-revoked", REVOKED, errors.HostKeyChangedError, Retry.NEVER, 5, "revoked"),
    ("host-key-unknown", "No ED25519 host key is known for [server]:2222 and you have requested "
     "strict checking.\nHost key verification failed.",
     errors.HostKeyUnknownError, Retry.NEVER, 5, "[server]:2222"),
    ("host-key-not-accepted", "Host key verification failed.",
     errors.HostKeyUnknownError, Retry.NEVER, 5, "not accepted"),
    ("no-cipher", "Unable to negotiate with 10.9.9.9 port 22: no matching cipher found. Their "
     "offer: aes128-ctr,aes256-ctr", errors.RefusedError, Retry.NEVER, 5, "aes128-ctr"),
    ("no-host-key-type", "Unable to negotiate with 10.9.9.9 port 22: no matching host key type "
     "found. Their offer: ssh-rsa", errors.RefusedError, Retry.NEVER, 5, "ssh-rsa"),
    ("bad-option", "command-line: line 0: Bad configuration option: foo",
     errors.UsageError, Retry.NEVER, 2, "foo"),
    ("no-config-file", "Can't open user config file /nonexist: No such file or directory",
     errors.ConfigError, Retry.NEVER, 2, "/nonexist"),
    ("bad-config", "/home/alice/cfg: line 2: Bad configuration option: foo\n"
     "/home/alice/cfg: terminating, 1 bad configuration options",
     errors.ConfigError, Retry.NEVER, 2, "line 2"),
    ("bad-config-value", "/home/alice/cfg line 2: Bad port 'x'.\n"
     "/home/alice/cfg: terminating, 1 bad configuration options",
     errors.ConfigError, Retry.NEVER, 2, "line 2"),
    ("config-owner", "Bad owner or permissions on /home/alice/.ssh/config",
     errors.FileOwnerError, Retry.NEVER, 2, "/home/alice/.ssh/config"),
    ("option-deprecated", '/etc/ssh/ssh_config line 53: Unsupported option "gssapiauthentication"\n'
     '/etc/ssh/ssh_config line 54: Deprecated option "useroaming"\n'
     "ssh: connect to host server port 22: Connection refused",
     errors.UnreachableError, Retry.FOREVER, 6, "connection refused"),
    ("tunnel-refused", "Tunnel forwarding failed",
     errors.TunnelRefusedError, Retry.NEVER, 5, "PermitTunnel"),
    ("tunnel-unit-at-server", "debug1: Remote: Failed to open the tunnel device.\n"
     "channel 0: open failed: connect failed: open failed\nTunnel forwarding failed",
     DeviceRefusedError, Retry.NEVER, 5, "modprobe tun"),
    ("tunnel-not-permitted", "debug1: Remote: Server has rejected tunnel device forwarding\n"
     "debug1: Remote: Failed to open the tunnel device.\n"
     "channel 0: open failed: connect failed: open failed\nTunnel forwarding failed",
     errors.TunnelRefusedError, Retry.NEVER, 5, "set PermitTunnel point-to-point"),
    ("tunnel-local-busy", "debug1: sys_tun_open: failed to configure tunnel (mode 1): "
     "Device or resource busy\nTunnel device open failed.\n"
     "Could not request tunnel forwarding.", errors.TakenError, Retry.ONCE_RUN, 7, "tun"),
    ("tunnel-local-not-owned", "debug1: sys_tun_open: failed to configure tunnel (mode 1): "
     "Operation not permitted\nTunnel device open failed.\n"
     "Could not request tunnel forwarding.", errors.PrivilegeError, Retry.NEVER, 4, "tun"),
    ("tunnel-local-no-driver", "debug1: sys_tun_open: failed to open tunnel control interface: "
     "No such file or directory\nTunnel device open failed.\n"
     "Could not request tunnel forwarding.", errors.PrivilegeError, Retry.NEVER, 4, "modprobe tun"),
    ("tunnel-rejected", "Server has rejected tunnel device forwarding",
     errors.TunnelRefusedError, Retry.NEVER, 5, ""),
    ("port-taken", "bind [127.0.0.1]:9999: Address already in use\n"
     "channel_setup_fwd_listener_tcpip: cannot listen to port: 9999\n"
     "Could not request local forwarding.",
     errors.TakenError, Retry.ONCE_RUN, 7, "127.0.0.1]:9999"),
    ("port-privileged", "bind [127.0.0.1]:80: Permission denied\n"
     "channel_setup_fwd_listener_tcpip: cannot listen to port: 80",
     errors.PrivilegeError, Retry.NEVER, 4, "1024"),
    ("address-elsewhere", "bind [203.0.113.99]:8000: Cannot assign requested address",
     errors.UsageError, Retry.NEVER, 2, "203.0.113.99"),
    ("unix-taken", "unix_listener: cannot bind to path /run/a.sock: Address already in use",
     errors.TakenError, Retry.ONCE_RUN, 7, "/run/a.sock"),
    ("remote-taken", "Error: remote port forwarding failed for listen port 80",
     errors.TakenError, Retry.ONCE_RUN, 7, "80"),
    ("remote-taken-mux", "mux_client_forward: forwarding request failed: remote port forwarding "
     "failed for listen port 9999", errors.TakenError, Retry.ONCE_RUN, 7, "9999"),
    ("remote-path", "Warning: remote port forwarding failed for listen path /run/b.sock",
     errors.TakenError, Retry.ONCE_RUN, 7, "/run/b.sock"),
    ("unknown", "ssh: something that no version said yet",
     errors.UnknownSshError, Retry.FOREVER, 1, "no version said yet"),
    ("unknown-before-post-quantum-warning",
     "** WARNING: connection is not using a post-quantum key exchange algorithm.\n"
     '** This session may be vulnerable to "store now, decrypt later" attacks.\n'
     "** The server may need to be upgraded. See https://openssh.com/pq.html\n"
     "Connection to 10.9.9.9 closed by remote host.",
     errors.ConnectionLostError, Retry.FOREVER, 6, "ended"),
    ("silence", "", errors.ConnectionLostError, Retry.FOREVER, 6, "without a word"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stderr", "kind", "retry", "exit_code", "word"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_ssh_said_has_its_class_retry_and_exit_code(
    stderr: str, kind: type[errors.SshvpnError], retry: Retry, exit_code: int, word: str
) -> None:
    error = classify(stderr.splitlines(), 255)
    assert type(error) is kind
    assert error.retry is retry
    assert error.exit_code == exit_code
    assert word in f"{error} {error.hint}"
    assert "\n" not in f"{error}{error.hint}"


def first_start(error: errors.SshvpnError) -> tuple[int, errors.SshvpnError]:
    """Return after how many attempts, all of which end so, a start of 30 s gives up, and why."""
    life, now, attempts = step(Life(), Start(timeout_s=30), 0)[0], 0.0, 0
    while True:
        attempts += 1
        life, commands = step(life, Failed(error), now)
        for command in commands:
            if isinstance(command, GiveUp):
                assert life.phase is State.FAILED
                return attempts, command.error
        assert life.retry_at is not None
        now = life.retry_at
        life, commands = step(life, TimerFired(), now)
        assert Connect(may_prompt=True) in commands


def lost(error: errors.SshvpnError) -> str:
    """Return what becomes of a connection that has run and ends so."""
    life = step(step(Life(), Start(), 0)[0], Connected(), 1)[0]
    life, commands = step(life, Failed(error), 100)
    assert Disconnect() in commands
    assert life.last_error is error
    if life.phase is State.FAILED:
        assert step(life, TimerFired(), 1e6) == (life, ())
        return "failed"
    assert life.phase is State.BACKOFF
    if AwaitLogin() in commands:
        assert life.retry_at is None
        return "waits for a login"
    assert commands == (Disconnect(), SetTimer(life.retry_at), WatchWay())
    return "tried again"


@pytest.mark.parametrize(
    ("stderr", "kind", "retry", "exit_code"),
    [case[1:5] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_ssh_said_ends_a_session_or_is_tried_again(
    stderr: str, kind: type[errors.SshvpnError], retry: Retry, exit_code: int
) -> None:
    error = classify(stderr.splitlines(), 255)
    attempts, reason = first_start(error)
    assert reason is error
    assert (type(reason), reason.exit_code) == (kind, exit_code)
    assert attempts == 1 if retry is not Retry.FOREVER else attempts > 3
    # A port that was ours, and is taken now, may come back.
    ends = {
        Retry.FOREVER: "tried again", Retry.ONCE_RUN: "tried again",
        Retry.ON_LOGIN: "waits for a login", Retry.NEVER: "failed",
    }  # fmt: skip
    assert lost(error) == ends[retry]


BANNER = """\
###############################################################################
#  @ WARNING @   AUTHORIZED USERS ONLY: REMOTE HOST IDENTIFICATION HAS CHANGED  #
###############################################################################
Permission denied (see policy 4) for everybody who is not staff.
Permission denied (publickey).
Too many authentication failures lock the account, as does Host key verification failed.
Lot line 2: closed. Section line 7: closed.
Who would bind 127.0.0.1:80: ask first; connect to host gate port 22: never.
If you read "Could not resolve hostname nas: try later", call 4711.
No ED25519 host key is known for backup and you have requested strict checking? See the wiki.
no matching cipher found. Their offer: none. Write failed: call us.
Since May: Connection to db port 22 timed out? Connection closed by 10.0.0.1 at midnight.
Tunnel forwarding failed, or Tunnel device open failed: not supported here.
Our tunnels are administratively prohibited; remote port forwarding failed for listen port 80.
Timeout, server 7 not responding: reboot it. A key from an agent refused operation? Unlock it."""


@pytest.mark.parametrize("stderr", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_debug_lines_and_a_login_banner_around_it_change_nothing(stderr: str) -> None:
    bare = classify(stderr.splitlines(), 255)
    before = ["debug1: Connecting to server", "debug1: read_passphrase: can't open /dev/tty"]
    after = ["debug1: Exit status -1"]
    around = classify([*before, *stderr.splitlines(), *after], 255)
    assert (type(around), str(around), around.hint) == (type(bare), str(bare), bare.hint)
    if stderr:
        around = classify([*before, *BANNER.splitlines(), *stderr.splitlines(), *after], 255)
        assert (type(around), str(around), around.hint) == (type(bare), str(bare), bare.hint)


def test_a_banner_alone_is_nothing_that_ssh_said() -> None:
    error = classify(BANNER.splitlines(), 255)
    assert error.retry is Retry.FOREVER
    assert type(error) is errors.UnknownSshError


@pytest.mark.parametrize(
    "banner", ["Permission denied (see policy 4) for everybody.", "Lot line 2: closed"]
)
@pytest.mark.parametrize(
    "said",
    ["Connection to 10.9.9.9 closed by remote host.", "Timeout, server 10.9.9.9 not responding."],
)
def test_a_banner_is_not_taken_for_why_a_connection_was_lost(banner: str, said: str) -> None:
    assert type(classify([banner, said], 255)) is errors.ConnectionLostError


def test_what_ssh_says_of_pipes_that_are_no_sockets_is_nothing_to_read() -> None:
    """OpenSSH ends each channel with shutdown(2), our agent's pipes and tun devices too."""
    said = "chan_shutdown_read: channel 0: shutdown() failed for fd 4 [i0 o0]: Not a socket"
    assert is_noise(said)
    assert isinstance(classify([said], 255), errors.ConnectionLostError)


def test_ssh_that_was_killed_is_a_lost_connection() -> None:
    error = classify([], -9)
    assert isinstance(error, errors.ConnectionLostError)
    assert "signal 9" in str(error)


@given(st.lists(st.text()), st.one_of(st.none(), st.integers(-64, 255)))
def test_no_text_breaks_it(lines: list[str], status: int | None) -> None:
    error = classify(lines, status)
    assert error.exit_code in (1, 2, 4, 5, 6, 7)
    assert str(error).isprintable()
    assert error.hint.isprintable()
