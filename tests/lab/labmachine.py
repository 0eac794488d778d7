"""A machine of the laboratory with what a person or an administrator does at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.lab import dump
from tests.lab.machine import Child, Machine
from tests.lab.sshd import KEY_TYPES, PASSPHRASE, KeyPair, Sshd, key_pair, start


class LabMachine(Machine):
    """A machine with its place in the topology."""

    sshd: Sshd

    def start_sshd(
        self,
        port: int = 22,
        options: Mapping[str, str] | None = None,
        *,
        users: Sequence[str] = ("alice",),
        addresses: Sequence[str] = (),
        key_types: Sequence[str] = KEY_TYPES,
    ) -> Sshd:
        """Start a real sshd and return it; it is stopped at the end of the test.

        OPTIONS go to sshd_config and win over `sshd.DEFAULTS`; a value of several lines repeats
        its keyword. USERS let alice's key in (`root` is a user too). ADDRESSES are what it
        listens on, all by default.
        """
        for user in users:
            self.authorize(user)
        running = start(self, port, options, addresses=addresses, key_types=key_types)
        self._undo.callback(running.stop)
        self._undo.callback(running.kill_sessions)
        return running

    def authorize(self, user: str = "alice", options: str = "", *, key: str | None = None) -> None:
        """Let alice's key (or KEY, a public one) log in as USER and nothing else.

        OPTIONS is what stands before the key in authorized_keys.
        """
        public = key or alices_key().public
        home = "/root" if user == "root" else f"/home/{user}"
        self.write(f"{home}/.ssh/authorized_keys", f"{options} {public}".lstrip(), user)

    def allow_sudo(self, user: str = "alice", *, password: bool = False) -> None:
        """Let USER use sudo for everything, without a password unless PASSWORD."""
        tag = "" if password else "NOPASSWD: "
        self.write(f"/etc/sudoers.d/{user}", f"{user} ALL=(ALL) {tag}ALL\n", "root", 0o440)

    def add_user(self, name: str, uid: int, shell: str = "/bin/bash") -> None:
        """Make one more user, with a home and without a password."""
        self.run(
            ["useradd", "--create-home", "--uid", str(uid), "--shell", shell, name], user="root"
        )

    def ip(self, *args: str) -> str:
        """Run `ip ARGS` as root and return what it printed."""
        return self.run(["ip", *args], user="root").stdout

    def nft(self, ruleset: str) -> None:
        """Load RULESET in one transaction."""
        self.run(["nft", "-f", "-"], user="root", input=ruleset)

    def story(self) -> str:
        """Return what helps to see why a test failed: processes, links, the end of sshd's log."""
        processes = "\n".join(f"{pid:>6} {line}" for pid, line in self.processes().items())
        logs = [
            f"-- {path.parent.name}\n" + "\n".join(path.read_text().splitlines()[-30:])
            for path in self.host_path("/run").glob("lab-sshd-*/log")
        ]
        return "\n".join([processes, self.ip("-brief", "address"), *logs])

    def dump(self) -> str:
        """Return the whole network state as text, without what changes by itself."""
        return finish_dump(self.start_dump())

    def start_dump(self) -> Child:
        """Start a dump; several run at once that way."""
        return self.popen(["sh", "-c", dump.SCRIPT], user="root", env={"LC_ALL": "C"})


def finish_dump(child: Child) -> str:
    """Return the dump that `start_dump` began."""
    text, _ = child.communicate(timeout=30)
    return dump.normalise(text)


def alices_key() -> KeyPair:
    """Return alice's key; it is encrypted with `PASSPHRASE`."""
    return key_pair("ed25519", "alice", PASSPHRASE)
