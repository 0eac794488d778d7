"""Records of ``status --json`` that the tests of what is shown begin with."""

from __future__ import annotations

from typing import Any

SINCE = "2024-11-23T14:02:00Z"


def tunnel(**changes: Any) -> dict[str, Any]:
    """Return the record of a tunnel that runs and is shared."""
    return {
        "name": "office",
        "uid": 1000,
        "host": "alice@vpn.example.com",
        "state": "running",
        "transport": "w",
        "transport_reason": "asked for",
        "device": "sshvpn0",
        "mtu": 16380,
        "local_address": "100.64.0.1/30",
        "remote_address": "100.64.0.2/30",
        "local_addresses": ["100.64.0.1/30", "fd5a::1/126"],
        "remote_addresses": ["100.64.0.2/30", "fd5a::2/126"],
        "routes": ["10.20.0.0/16"],
        "lan": [{"interface": "eth0", "network": "192.168.1.0/24", "address": "192.168.1.5"}],
        "published": [service()],
        "since": SINCE,
        "reconnects": 0,
        "retry_at": None,
        "congestion_control": {
            "local": "bbr",
            "remote": "unknown",
            "notes": ["at the server: no python3"],
        },
        "rtt_ms": 12.345,
        "rx_bytes": 1_234_567,
        "tx_bytes": 4_567,
        "pid": 4711,
        "last_error": None,
        **changes,
    }


def waiting_tunnel(code: str, message: str, **changes: Any) -> dict[str, Any]:
    """Return the record of a tunnel that has not come up yet."""
    empty: dict[str, Any] = dict.fromkeys(
        (
            "mtu",
            "local_address",
            "remote_address",
            "local_addresses",
            "remote_addresses",
            "rtt_ms",
            "rx_bytes",
            "tx_bytes",
        )
    )
    return tunnel(
        state="backoff",
        routes=[],
        lan=[],
        published=[],
        congestion_control={"local": "unknown", "remote": "unknown", "notes": []},
        last_error={"code": code, "message": message},
        **{**empty, **changes},
    )


def service(**changes: Any) -> dict[str, Any]:
    """Return one entry of ``published``."""
    return {
        "listen": "192.168.1.5:8888",
        "target": "localhost:8888",
        "url": "http://192.168.1.5:8888/",
        "survives_reconnect": True,
        **changes,
    }


def forward(**changes: Any) -> dict[str, Any]:
    """Return the record of a forward that runs."""
    return {
        "name": "gpu-box",
        "uid": 1000,
        "host": "gpu-box",
        "engine": "openssh",
        "direction": "local",
        "spec": "9999:8888",
        "state": "running",
        "listen": ["127.0.0.1:9999"],
        "target": "localhost:8888",
        "url": "http://localhost:9999/",
        "since": SINCE,
        "reconnects": 0,
        "retry_at": None,
        "congestion_control": {"local": "unknown", "remote": "unknown", "notes": []},
        "pid": 4712,
        "last_error": None,
        **changes,
    }
