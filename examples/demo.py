"""The main job, shown: a notebook on a remote host, opened by every machine of a small office.

`make demo` runs this. It builds the office out of network namespaces (tests/lab draws it), runs
the real commands as alice, an ordinary user, and takes everything down: first with a forward,
then with the VPN, and at last by the one command that does it all. Each step is a function;
`main` is the story.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from typing import Final

from pexpect import EOF

from examples.notebook import open_the_notebook
from examples.telling import (
    GREEN,
    PATH,
    PLAIN,
    expect,
    fail,
    read,
    run,
    say,
    show_command,
    show_output,
)
from tests.lab import ALICE_PASSWORD, Child, CommandError, Lab, LabMachine, Service, wait_until
from tests.lab.process import read_line

OFFICE: Final = """\
      the office's network                 the internet
      192.168.77.0/24
  ┌──────┐            ┌─────────┐                           ┌────────────────────────┐
  │ lan  ├────────────┤ gateway ├───────────────────────────┤ server                 │
  └──────┘         .1 └─────────┘        SSH only           │ Jupyter on its own     │
  a tablet,           alice's machine                       │ localhost:8888         │
  say                                                       └───────────┬────────────┘
                                      the server's network, 10.20.0.0/24 │
                                                                    ┌───┴───┐
                                                                    │ inner │ .10
                                                                    └───────┘
"""
TITLE: Final = re.compile(r"<title>(.*?)</title>", re.DOTALL)
TOKEN: Final = "letmein"  # noqa: S105 -- of a notebook that lives for a minute
INNER: Final = "http://10.20.0.10/"
SHARING: Final = ("--lan", "--publish", "8888", "--route", "10.20.0.0/24")


def visit_notebook(machine: LabMachine, url: str) -> str | None:
    """Open the notebook at URL on MACHINE, as `visit` does."""
    return visit(machine, f"{url}/lab?token={TOKEN}")


def visit(machine: LabMachine, url: str) -> str | None:
    """Open URL on MACHINE as a browser would; show and return the page's title, None if none."""
    show_command(machine, ["curl", "-L", url])
    fetch = ["curl", "-sSL", "--max-time", "5", "-w", "\n%{http_code}", url]
    result = machine.run(fetch, check=False)
    if result.returncode != 0:
        show_output(result.stderr)
        return None
    page, _, status = result.stdout.rpartition("\n")
    found = TITLE.search(page)
    title = found[1].strip() if found else "(no title)"
    print(f"  {GREEN}HTTP {status}, the page's title is “{title}”{PLAIN}", flush=True)
    return title if status == "200" else None


def build_office() -> Lab:
    """Build the office and show it."""
    say("""A small office is built inside this computer: three machines made of network
        namespaces, joined by virtual cables. Your own network is not touched.""")
    started = time.monotonic()
    lab = Lab()
    print(f"\n{OFFICE}\n  (built in {time.monotonic() - started:.1f} s)", flush=True)
    return lab


def start_notebook(lab: Lab) -> Service:
    """Start JupyterLab on the server, where nobody else reaches it."""
    say("""On the server, JupyterLab is started. It listens on the server's own localhost only,
        as it does unless told otherwise, so nobody on another machine can open it:""")
    # Without the last word it answers those alone who call it localhost.
    remote = "--ServerApp.allow_remote_access=True"
    show_command(lab.server, ["jupyter", "lab", "--no-browser", "--port=8888", remote])
    notebook = lab.server.start_jupyter(8888, token=TOKEN)
    print("  (it answers, on the server)", flush=True)
    title = visit_notebook(lab.gateway, "http://server:8888")
    expect(truth=title is None, otherwise="the notebook should not be reachable yet")
    return notebook


def forward_here(lab: Lab) -> None:
    """Show the one-line case: the notebook on the machine where alice sits."""
    say("""alice sits at the gateway. She may log in to the server by SSH, with a key; that is all
        she has. One command brings the notebook here:""")
    argv = ["sshvpn", "forward", "9999:8888", "--host", "alice@server"]
    show_command(lab.gateway, argv)
    child = lab.gateway.popen(argv, env=PATH, stderr=subprocess.STDOUT)
    try:
        show_until_it_runs(child)
        title = visit_notebook(lab.gateway, "http://localhost:9999")
        expect(truth=title is not None, otherwise="the notebook should be at localhost:9999")
        say("The LAN machine cannot open it: it was not shared with anybody.")
        title = visit_notebook(lab.lan, "http://gateway:9999")
        expect(truth=title is None, otherwise="the LAN machine should not reach localhost:9999")
        say("alice presses Ctrl-C, and it is gone.")
        child.send_signal(signal.SIGINT)
        show_output("^C\n" + child.communicate(timeout=10)[0])
    finally:
        child.end()


def show_until_it_runs(child: Child) -> None:
    """Show what CHILD prints, up to the line that says it is running."""
    while line := read_line(child, 30):
        show_output(line)
        if "running" in line:
            return
    fail("sshvpn ended")


def share_with_the_lan(lab: Lab) -> None:
    """Show the second case: every machine of the local network, in the background."""
    say("""Now for every machine of the office's network: --lan listens on the gateway's address
        there, and -b leaves it running in the background.""")
    run(lab.gateway, "sshvpn", "forward", "-b", "--lan", "9999:8888", "--host", "alice@server")
    say("On the LAN machine nothing is installed and nothing is set up. Its browser opens:")
    title = visit_notebook(lab.lan, f"http://{lab.gateway.address}:9999")
    expect(truth=title is not None, otherwise="the LAN machine should see the notebook")
    say("What is running:")
    run(lab.gateway, "sshvpn", "status")


def survive_a_cut(lab: Lab) -> None:
    """Show that a cut link heals by itself."""
    say("""Now the server drops the SSH connection. Nobody has to do anything: the same address
        works again a moment later.""")
    lab.server.sshd.kill_sessions()
    url = f"http://{lab.gateway.address}:9999/api/status"
    fetch = ["curl", "-sf", "-o", "/dev/null", "--max-time", "2", f"{url}?token={TOKEN}"]
    wait_until(lambda: lab.lan.run(fetch, check=False).returncode == 0, 30, every=0.1)
    title = visit_notebook(lab.lan, f"http://{lab.gateway.address}:9999")
    expect(truth=title is not None, otherwise="the notebook should be back")


def end_the_forward(lab: Lab) -> None:
    """End the forward."""
    say("alice ends it:")
    run(lab.gateway, "sshvpn", "down")
    title = visit_notebook(lab.lan, f"http://{lab.gateway.address}:9999")
    expect(truth=title is None, otherwise="nothing should listen any more")


def bring_the_vpn_up(lab: Lab) -> None:
    """Show the third case: not one port, but the server and its whole network."""
    lab.inner.http_server(80, lab.inner.address, title="the intranet")
    lab.server.allow_sudo("alice")
    say("""That was one port. Now the VPN: behind the server there is a network, and in it a
        machine called inner with a web page. From here nobody gets there:""")
    expect(truth=visit(lab.lan, INNER) is None, otherwise="inner should not be reachable yet")
    say("""The server has python3, so its sshd_config stays as it is, and alice may use sudo
        there. On her own machine she may too, with her password, and sshvpn says what for:""")
    up_with_a_password(lab, "sshvpn", "up", "alice@server", *SHARING)


def up_with_a_password(lab: Lab, *argv: str) -> None:
    """Type a command on the gateway as alice, and her password when sudo asks for it."""
    show_command(lab.gateway, list(argv))
    terminal = lab.gateway.pty(argv, env=PATH, timeout=60)
    terminal.expect("password for alice: ")
    show_output(terminal.before + terminal.after + "********")
    terminal.sendline(ALICE_PASSWORD)
    terminal.expect(EOF)
    show_output(terminal.before.strip("\r\n"))
    terminal.close()
    expect(truth=terminal.exitstatus == 0, otherwise="the VPN should be up")


def use_the_vpn(lab: Lab) -> None:
    """Show what a machine of the LAN sees of it."""
    say("""Again nothing is installed or set up on the LAN machine; the gateway is its router, as
        the box at the wall is at home. It opens the notebook, at the gateway:""")
    title = visit_notebook(lab.lan, f"http://{lab.gateway.address}:8888")
    expect(truth=title is not None, otherwise="the LAN machine should see the notebook")
    say("And the machine in the network behind the server, by its own address there:")
    expect(truth=visit(lab.lan, INNER) is not None, otherwise="inner should be reachable")
    say("""Nobody comes in the other way. The server knows the gateway's end of the tunnel, and
        gets no answer from it:""")
    (tunnel,) = json.loads(read(lab.gateway, "sshvpn", "status", "--json"))["tunnels"]
    gateway = tunnel["local_address"].partition("/")[0]
    ping = ["ping", "-q", "-c", "1", "-W", "1", gateway]
    show_command(lab.server, ping)
    result = lab.server.run(ping, check=False)
    show_output(result.stdout.strip())
    expect(truth=result.returncode != 0, otherwise="the gateway should not answer")
    say("What is up, and how it does:")
    run(lab.gateway, "sshvpn", "status", "alice@server")


def take_down(lab: Lab) -> None:
    """End the VPN, and show that nothing is left."""
    say("alice ends it:")
    run(lab.gateway, "sshvpn", "down")
    expect(truth=visit(lab.lan, INNER) is None, otherwise="inner should be out of reach again")
    try:
        lab.check()
    except AssertionError as error:
        fail(str(error))
    say("""Every machine is as it was before, the server too: the same devices, addresses, routes,
        firewall rules and settings, no process and no file left.""")


def main() -> None:
    """Tell the whole story; exit 1 if any of it is not so."""
    try:
        with build_office() as lab:
            start_notebook(lab)
            forward_here(lab)
            share_with_the_lan(lab)
            survive_a_cut(lab)
            end_the_forward(lab)
            bring_the_vpn_up(lab)
            use_the_vpn(lab)
            take_down(lab)
            open_the_notebook(lab)
    except KeyboardInterrupt:
        print("\nInterrupted; everything has been taken down.", file=sys.stderr)
        sys.exit(130)
    except (CommandError, TimeoutError) as error:
        fail(str(error))
    print(
        "\nThe office is taken down. README.md says how to do this with your own server.",
        flush=True,
    )


if __name__ == "__main__":
    main()
