"""The end of the demonstration: the notebook in one command, and its picture.

A real browser on the LAN machine opens the URL that `sshvpn notebook --lan` prints, runs two
cells, and what it shows is kept as a picture.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Final

from examples.telling import expect, run, say
from tests.lab import Lab

PICTURE: Final = Path("notebook.png")
BROWSER: Final = Path(__file__).parents[1] / "tests" / "lab" / "_browser.py"
CELLS: Final = (
    "import platform\nplatform.node()",
    """\
from math import cos, pi, sin
from IPython.display import SVG

line = ""
for i in range(2001):
    t = i * pi / 1000
    r = 105 * cos(8 * t)
    line += f"{160 + r * cos(5 * t):.1f},{108 + r * sin(5 * t):.1f} "
SVG('<svg width="320" height="216"><polyline fill="none" '
    f'stroke="#c2410c" points="{line}"/></svg>')""",
)


def open_the_notebook(lab: Lab) -> None:
    """Show the last case: Jupyter is started, forwarded and shared by one command."""
    # JupyterLab is installed where alice's login shell finds it, as conda and others have it.
    bin_directory = shlex.quote(str(Path(sys.executable).parent))
    lab.server.write("/home/alice/.profile", f"PATH={bin_directory}:$PATH; export PATH\n")
    say("""One thing is left. Nothing runs on the server now, and alice wants a notebook there, on
        the tablet. That is one command: it starts JupyterLab at the server, so that it goes on
        after she has logged out, makes the tunnel, and waits until it answers:""")
    words = ["sshvpn", "notebook", "alice@server", "--lan", "-b", "--no-browser"]
    said = run(lab.gateway, *words)
    (url,) = [line.split()[-1] for line in said.splitlines() if "on the LAN" in line]
    say("""On the LAN machine a browser opens the second URL (a real one, without a window), makes
        a notebook and runs two cells in it:""")
    inside = "/home/alice/notebook.png"
    order = {"url": url, "cells": CELLS, "screenshot": inside}
    result = lab.lan.run([sys.executable, str(BROWSER)], input=json.dumps(order), timeout=120)
    seen = json.loads(result.stdout)
    print(f"  In[1]: platform.node()   Out[1]: {seen['outputs'][0]}", flush=True)
    expect(truth=seen["outputs"][0] == "'server'", otherwise="the kernel should be the server's")
    _keep(lab.lan.host_path(inside).read_bytes())
    say("The notebook goes on until she ends it:")
    run(lab.gateway, "sshvpn", "notebook", "stop", "alice@server")


def _keep(picture: bytes) -> None:
    """Write PICTURE here, as the person who called sudo, if any."""
    PICTURE.unlink(missing_ok=True)
    PICTURE.write_bytes(picture)
    owner = int(os.environ.get("SUDO_UID", "-1")), int(os.environ.get("SUDO_GID", "-1"))
    os.chown(PICTURE, *owner)
    say(f"The picture of what it shows is {PICTURE.resolve()}")
