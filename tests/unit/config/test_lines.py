"""At which line a key stands: by hand for each shape of TOML, and for any document at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, strategies as st

from sshvpn.config.lines import KeyPath, key_lines
from sshvpn.config.toml import loads


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 2", ("b",), 2),
        ("\n# x\n  a=1", ("a",), 3),
        ("a.b.c = 1\na.b.d = 2", ("a", "b", "d"), 2),
        ("a.b = 1\na.c = 1", ("a",), 1),
        ("[t]\na = 1\n[u]\na = 2", ("u", "a"), 4),
        ("\n[a.b]\nc = 1", ("a",), 2),
        ("['a b'.\"c\\u0064\"]\nx = 1", ("a b", "cd", "x"), 2),
        ("a = [1,\n2, # two\n\n3]", ("a", 2), 4),
        ("a = [[],\n[1,\n2]]\nb = 1", ("a", 1, 1), 3),
        ("a = { b = 1, c = { d = 2 } }\ne = 1", ("a", "c", "d"), 1),
        ("a = [ { b = 1 },\n{ b = 2 } ]", ("a", 1, "b"), 2),
        ("[[a]]\nb=1\n[[a]]\nb=2", ("a", 1, "b"), 4),
        ("[[a]]\n[a.c]\nx=1\n[[a]]\n[a.c]\nx=1", ("a", 1, "c", "x"), 6),
        ("[[a]]\n[[a.b]]\nx=1\n[[a.b]]\nx=1", ("a", 0, "b", 1, "x"), 5),
        ('a = """\n[b]\nx = 1\n"""\nc = 1', ("c",), 5),
        ("a = '''\n\"\"\"\n'''\nc = 1", ("c",), 4),
        ('a = """a""\\"""""\nc = 1', ("c",), 2),
        ('a = "\\"#\\\\"\nc = 1', ("c",), 2),
        ('a = ""\nb = \'\'\nc = """"""\nd = 1', ("d",), 4),
        ("a = 1979-05-27 07:32:00\nb = [1979-05-27,\n+inf]", ("b", 1), 3),
        ("a = [ 'x', # ]\n'y' ]\nb = 1", ("b",), 3),
        ("a = 1\r\nb = 2\r\n", ("b",), 2),
    ],
)
def test_a_key_stands_where_it_is_written(text: str, path: KeyPath, line: int) -> None:
    assert loads(text), "the text is TOML"
    assert key_lines(text)[path] == line


def paths(value: object, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every key and element of ``value``."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*at, key)
        yield from paths(item, (*at, key))


toml_ish = st.lists(
    st.sampled_from(
        ["[a]\n", "[[b]]\n", "[a.b]\n", "[[b.c]]\n", "x = ", "y.z = ", "'k' = ", '"\\u0061" = ',
         "1\n", "[1, 2]\n", "[\n1,\n[2],\n]\n", "{ p = 1, q.r = [{}] }\n", '"""\n[x]\n"""\n',
         "'''a'b'''\n", '"#"\n', "'['\n", "# ]\n", "\n", "1979-05-27\n", "[{ a = 1 },\n{}]\n"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@given(st.text(alphabet="ab=.[]{}\"'\\\n#, 1", max_size=40) | toml_ish)
@example("a = [[[[1]]]]")
def test_every_key_of_any_document_has_its_line(text: str) -> None:
    try:
        document = loads(text)
    except ValueError:
        return  # not TOML: nothing is promised
    lines = key_lines(text)
    for path in paths(document):
        assert 1 <= lines[path] <= text.count("\n") + 1
