"""What a tunnel wants of this machine's kernel, and the steps that lead there; pure.

::

    TunnelPlan + Facts ──desired──> NetworkState ──diff(current, …)──> Step, Step, …
                                                                         │
                                        the helper makes them ───────────┤
                                        render() types them ─────────────┘
"""
