"""The services, under a real systemd: a Debian that systemd-nspawn boots in a second.

It stands in the network namespace of the laboratory's gateway, so that the laboratory's server,
its LAN and its comparison of before and after are there as in every other test::

    ┌─────┐        ┌──────────────────────────────┐          ┌────────┐
    │ lan ├── lan0 │ gateway's network namespace  │ wan0 ────┤ server │  a real sshd
    └─────┘        │  ┌────────────────────────┐  │          └────────┘
                   │  │ Box: Debian, PID 1 is  │  │
                   │  │ systemd, alice, sudo   │  │
                   │  └────────────────────────┘  │
                   └──────────────────────────────┘

`tree.py` makes the Debian once, outside of the repository; `box.py` boots a throw-away copy.
"""
