"""The portal's page: links that work the way one came, and no word of another that becomes HTML."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from sshvpn.lan.page import Visit, page
from sshvpn.presence import Adapter, Place, Presence, Shown

LAN0 = Adapter("lan0", 3, ("192.168.77.1/24", "fd77::1/64"))
NOTEBOOK = Shown("http", "127.0.0.1:8888", (Place("192.168.77.1", 9999), Place("fd77::1", 9999)))
PRESENCE = Presence(
    label="gpu-box",
    state="running",
    since="2026-11-25T20:00:00.000Z",
    adapters=(LAN0,),
    services=(NOTEBOOK,),
    networks=("10.20.0.0/24", "fd20::/48"),
    has_names=True,
)
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str | None]:
        return [attributes["href"] for tag, attributes in self.tags if tag == "a"]


def see(
    presence: Presence = PRESENCE, address: str = "192.168.77.1", name: str | None = None
) -> Seen:
    return Seen(page(presence, Visit(presence.adapters[0], address, name)))


def test_what_is_too_long_for_a_code_has_a_link_alone() -> None:
    long = replace(NOTEBOOK, path=f"/{'x' * 5000}/")
    seen = see(replace(PRESENCE, services=(long, NOTEBOOK)))
    assert len([tag for tag, _ in seen.tags if tag == "svg"]) == 1
    assert len(seen.links()) == 2


@pytest.mark.parametrize(
    ("address", "name", "link"),
    [
        ("192.168.77.1", None, "http://192.168.77.1:9999/"),
        ("fd77::1", None, "http://[fd77::1]:9999/"),
        ("192.168.77.1", "gpu-box.local", "http://gpu-box.local:9999/"),
    ],
)
def test_a_link_goes_the_way_one_came(address: str, name: str | None, link: str) -> None:
    assert see(address=address, name=name).links() == [link]


def test_who_came_by_ipv6_is_shown_what_there_is_by_ipv4_only() -> None:
    only4 = replace(NOTEBOOK, places=NOTEBOOK.places[:1])
    seen = see(replace(PRESENCE, services=(only4,)), "fd77::1")
    assert seen.links() == ["http://192.168.77.1:9999/"]


def test_what_is_at_another_adapter_only_is_not_shown() -> None:
    elsewhere = replace(NOTEBOOK, places=(Place("192.168.78.1", 9999),))
    seen = see(replace(PRESENCE, services=(elsewhere,)))
    assert seen.links() == []
    assert "Nothing is published here" in seen.text


def test_what_a_browser_cannot_open_is_no_link() -> None:
    database = Shown("postgresql", "db:5432", (Place("192.168.77.1", 5432),))
    seen = see(replace(PRESENCE, services=(database,)))
    assert seen.links() == []
    for words in ("PostgreSQL", "192.168.77.1:5432", "db:5432, by gpu-box"):
        assert words in seen.text


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "Connected"), ("backoff", "Connecting again"), ("failed", "Not connected")],
)
def test_the_state_is_said(state: str, words: str) -> None:
    assert words in see(replace(PRESENCE, state=state)).text


def test_the_networks_and_the_remote_hosts_own_address_are_told() -> None:
    adapter = replace(LAN0, appears_as="192.168.77.50")
    text = see(replace(PRESENCE, adapters=(adapter,))).text
    for words in (
        "192.168.77.50", "10.20.0.0/24, by the gateway 192.168.77.1",
        "fd20::/48, by the gateway fd77::1",
    ):  # fmt: skip
        assert words in text


def test_no_word_of_another_becomes_html() -> None:
    hostile = Presence(
        label=HOSTILE,
        state=HOSTILE,
        since=HOSTILE,
        adapters=(replace(LAN0, appears_as=HOSTILE),),
        services=(
            replace(NOTEBOOK, target=HOSTILE), Shown(HOSTILE, HOSTILE, NOTEBOOK.places),
            replace(NOTEBOOK, title=HOSTILE, path=f"/{HOSTILE}", token=HOSTILE),
        ),
        networks=PRESENCE.networks,
        has_names=True,
    )  # fmt: skip
    usual = {tag for tag, _ in see().tags} | {"div", "h2", "dl", "dt", "dd"}
    seen = Seen(page(hostile, Visit(hostile.adapters[0], "192.168.77.1", HOSTILE)))
    assert {tag for tag, _ in seen.tags} <= usual
    assert [a.get("src") for tag, a in seen.tags if tag == "script"] == ["/portal.js"]
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    assert not any("style" in attributes for _, attributes in seen.tags), "the policy forbids it"
    assert HOSTILE in seen.text
    links = [str(attributes["href"]) for tag, attributes in seen.tags if tag == "a"]
    assert all(link.startswith("http://") for link in links)
    rest = f"/{quote(HOSTILE, safe='/')}?token={quote(HOSTILE, safe='')}"
    assert any(link.endswith(rest) for link in links)


def test_nothing_is_loaded_from_elsewhere() -> None:
    loaded = [
        attributes.get("src") or attributes.get("href")
        for tag, attributes in see().tags
        if tag not in ("a", "path", "svg")
    ]
    assert set(loaded) - {None} == {"/portal.css", "/portal.js"}


def test_a_notebooks_link_has_its_path_and_its_token_and_shows_neither() -> None:
    notebook = replace(NOTEBOOK, title="Jupyter", path="/user/al ice/", token="a&b")
    seen = see(replace(PRESENCE, services=(notebook,)))
    assert seen.links() == ["http://192.168.77.1:9999/user/al%20ice/?token=a%26b"]
    assert "Jupyter" in seen.text
    assert "token" not in seen.text
