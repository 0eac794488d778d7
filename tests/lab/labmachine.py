"""A machine of the laboratory with what a person or an administrator does at it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.lab import dump
from tests.lab.machine import HERE, NO_COVERAGE, Machine
from tests.lab.process import Child, LabError, read_line, wait_until
from tests.lab.sshd import KEY_TYPES, PASSPHRASE, KeyPair, Sshd, key_pair, start


@dataclass
class Service:
    """Something that listens in a machine until `stop()`; KIND is for messages."""

    kind: str
    child: Child
    address: str
    port: int
    token: str | None = None

    @property
    def url(self) -> str:
        """The service's address as a browser on the same machine would have it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/"

    def stop(self) -> None:
        """End it; twice does nothing more."""
        self.child.end()


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

    def http_server(
        self, port: int = 8080, address: str = "127.0.0.1", *, title: str | None = None
    ) -> Service:
        """Start a web server whose page has TITLE (default: the machine's name).

        `/` is an HTML page, `/peer` the client's address as seen here, `/bytes/N` N bytes, and a
        POST to `/sha256` is answered with the body's hash. It listens when this returns.
        """
        return self._serve("http", address, port, title or self.name)

    def tcp_server(self, port: int, address: str = "127.0.0.1", *, kind: str = "echo") -> Service:
        """Start a TCP service that listens when this returns.

        KIND "echo" sends back what comes and closes after the client did; "hash" reads to the end
        and then answers with the SHA-256 in hex (it needs half-close to work); "source" sends
        until it is closed; "sink" reads and says nothing; "mute" accepts and reads nothing.
        """
        return self._serve(kind, address, port)

    def udp_server(self, port: int, address: str = "127.0.0.1") -> Service:
        """Start a UDP echo service; it listens when this returns."""
        return self._serve("udp", address, port)

    def unix_server(self, path: str, *, kind: str = "echo", user: str = "alice") -> Service:
        """Start a TCP-like service (see `tcp_server`) on the unix socket PATH."""
        return self._serve(kind, path, 0, user=user)

    def _serve(self, kind: str, address: str, port: int, *args: str, user: str = "root") -> Service:
        argv = [sys.executable, "-I", "-S", str(HERE / "_services.py"), kind, address, str(port)]
        child = self.popen([*argv, *args], user=user, env=NO_COVERAGE)
        service = Service(kind, child, address, port)
        self._undo.callback(service.stop)
        line = read_line(child, timeout=10)
        if not line.startswith("ready "):
            child.kill_tree()
            raise LabError(f"{self.name}: {kind} service: {line}{child.communicate()[1]}")
        service.port = int(line.split()[1])
        return service

    def start_jupyter(
        self,
        port: int = 8888,
        *options: str,
        user: str = "alice",
        token: str = "letmein",  # noqa: S107
    ) -> Service:
        """Start a real Jupyter server (JupyterLab where it is installed) on localhost:PORT.

        OPTIONS are more of its own.
        It answers when this returns; its address with the token is `url + "lab?token=" + token`.
        """
        argv = [
            sys.executable, "-m", "jupyterlab",
            "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
            f"--IdentityProvider.token={token}", "--ServerApp.allow_remote_access=True",
            "--ServerApp.terminals_enabled=False", *options,
        ]  # fmt: skip
        log = f"/var/log/jupyter-{port}.log"
        with self.host_path(log).open("w") as stream:
            child = self.popen(argv, user=user, env=NO_COVERAGE, stdout=stream, stderr=stream)
        service = Service("jupyter", child, "127.0.0.1", port, token)
        self._undo.callback(service.stop)

        def answers() -> bool:
            if child.poll() is not None:
                raise LabError(f"{self.name}: Jupyter ended:\n{self.read(log)}")
            url = f"{service.url}api/status?token={token}"
            return self.run(["curl", "-fsS", "-o", "/dev/null", url], check=False).returncode == 0

        wait_until(answers, 40, what=f"{self.name}: Jupyter does not answer", every=0.1)
        return service


def finish_dump(child: Child) -> str:
    """Return the dump that `start_dump` began."""
    text, _ = child.communicate(timeout=30)
    return dump.normalise(text)


def alices_key() -> KeyPair:
    """Return alice's key; it is encrypted with `PASSPHRASE`."""
    return key_pair("ed25519", "alice", PASSPHRASE)
