"""Builds the system: the only room that knows all others, one file per kind of job.

The command line, the background process and the Python interface come here for a session that
can be run. Everything heavy is imported where it is used: ``sshvpn status`` passes by here too.

::

    services
       │     forwards ── notebooks
    tunnels     │            │        what is run, made and started
       │        └─────┬──────┘
    privilege      sessions           one session, in this process or in one of its own
                      │
       places  outside  lan  terminal
"""
