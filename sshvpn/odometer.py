"""What a session has carried over all its connections; pure."""

from __future__ import annotations

from dataclasses import replace

from sshvpn.model import Traffic

NO_TRAFFIC = Traffic(rx_bytes=None, tx_bytes=None, connections=None)


class Odometer:
    """Adds up what connections have carried, one after the other."""

    def __init__(self) -> None:
        self._before = (0, 0)
        self._last = NO_TRAFFIC

    def read(self, now: Traffic) -> Traffic:
        """Return the sum, ``now`` being what the present connection has carried."""
        if now.rx_bytes is None or now.tx_bytes is None:
            now = replace(now, rx_bytes=self._last.rx_bytes, tx_bytes=self._last.tx_bytes)
        self._last = now
        if now.rx_bytes is None or now.tx_bytes is None:
            return now
        rx_before, tx_before = self._before
        return replace(now, rx_bytes=rx_before + now.rx_bytes, tx_bytes=tx_before + now.tx_bytes)

    def end(self) -> None:
        """Begin with the next connection; what this one carried since the last look is lost."""
        if self._last.rx_bytes is not None and self._last.tx_bytes is not None:
            rx_before, tx_before = self._before
            self._before = (rx_before + self._last.rx_bytes, tx_before + self._last.tx_bytes)
            self._last = replace(NO_TRAFFIC, rx_bytes=0, tx_bytes=0)
