"""sshvpn.frozen makes what the standard library's decorator makes, by other methods."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sshvpn import frozen

Make = Callable[[type], type]


def our_make(kind: type) -> type:
    made: type = frozen.dataclass(frozen=True, slots=True)(kind)
    return made


def make_as_standard(kind: type) -> type:
    made: type = dataclasses.dataclass(frozen=True, slots=True)(kind)
    return made


@pytest.fixture(params=[our_make, make_as_standard], ids=["ours", "standard"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def route(make: Make) -> Any:
    """Return a class that has one of each: what is wanted, preset, made anew, not compared."""

    class Route:
        """A way."""

        network: str
        metric: int = 5
        hops: list[str] = field(default_factory=list)
        token: str = field(default="", repr=False, compare=False)
        kind: ClassVar[str] = "route"

        @property
        def text(self) -> str:
            return f"{self.network} metric {self.metric}"

    return make(Route)


def test_fields_are_set_by_position_by_name_and_by_default(make: Make) -> None:
    kind = route(make)
    one, other = kind("10/8", 7, token="x"), kind(network="11/8")
    assert (one.network, one.metric, one.hops, one.token) == ("10/8", 7, [], "x")
    assert (other.network, other.metric, other.text) == ("11/8", 5, "11/8 metric 5")
    assert one.hops is not other.hops
    assert kind.kind == "route"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((), {"metric": 1}),
        (("n", 1, [], "t", "more"), {}),
        (("n",), {"network": "n"}),
        (("n",), {"unheard": 1}),
    ],
)
def test_wrong_words_are_refused(make: Make, args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        route(make)(*args, **kwargs)


def test_nothing_of_it_can_be_changed_or_added(make: Make) -> None:
    one = route(make)("10/8")
    for name in ("network", "metric"):
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, "other")
        with pytest.raises(FrozenInstanceError):
            delattr(one, name)
    with pytest.raises((FrozenInstanceError, TypeError)):  # TypeError: 3.10, 3.11 (gh-90562)
        one.unheard = 1
    assert not hasattr(one, "__dict__")
    assert one.network == "10/8"


def test_two_are_equal_by_what_is_compared_and_by_their_class(make: Make) -> None:
    kind, twin = route(make), route(make)
    assert kind("n", token="a") == kind("n", token="b")
    assert kind("n") != kind("n", 6)
    assert kind("n") != twin("n")
    assert kind("n") != ("n", 5, [], "")


def test_it_is_a_key_where_its_values_are(make: Make) -> None:
    kind = route(make)
    assert hash(kind("n", 1, (), "a")) == hash(kind("n", 1, (), "b"))
    assert len({kind("n", 1, ()), kind("n", 1, ()), kind("n", 2, ())}) == 2
    with pytest.raises(TypeError):
        hash(kind("n"))


def test_it_shows_its_values_but_what_is_not_to_be_shown(make: Make) -> None:
    text = repr(route(make)("10/8", hops=["a"], token="secret"))
    assert text.endswith("Route(network='10/8', metric=5, hops=['a'])")


def test_what_the_standard_library_does_with_dataclasses_it_does_with_these(make: Make) -> None:
    kind = route(make)
    one: Any = kind("10/8", 7, ["a"])
    names = [f.name for f in fields(kind)]
    assert is_dataclass(kind)
    assert names == ["network", "metric", "hops", "token"]
    assert asdict(one) == {"network": "10/8", "metric": 7, "hops": ["a"], "token": ""}
    changed = replace(one, metric=8)
    assert (changed.metric, changed.network, one.metric) == (8, "10/8", 7)
    assert one.__match_args__ == tuple(names)
    assert (type(one).__name__, one.__doc__) == ("Route", "A way.")


def test_it_is_copied_and_pickled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = route(make)
    kind.__qualname__ = "Route"  # as one that a module has
    monkeypatch.setattr(sys.modules[__name__], "Route", kind, raising=False)
    one = kind("10/8", 7, ["a"], "x")
    unpickled = pickle.loads(pickle.dumps(one))  # noqa: S301 (it is our own)
    for other in (copy.copy(one), copy.deepcopy(one), unpickled):
        assert other == one
        assert other.token == "x"
    assert copy.deepcopy(one).hops is not one.hops


def test_what_a_class_writes_itself_stays(make: Make) -> None:
    class Port:
        number: int

        def __post_init__(self) -> None:
            if not 0 < self.number < 1 << 16:
                raise ValueError(self.number)

        def __repr__(self) -> str:
            return f":{self.number}"

        def __hash__(self) -> int:
            return 1

    kind: Any = make(Port)
    assert repr(kind(80)) == ":80"
    assert hash(kind(80)) == 1
    with pytest.raises(ValueError, match="70000"):
        kind(70000)
    with pytest.raises(ValueError, match="70000"):
        replace(kind(80), number=70000)


def test_one_without_fields_is_equal_to_its_like(make: Make) -> None:
    class Nothing:
        pass

    kind: Any = make(Nothing)
    assert kind() == kind()
    assert len({kind(), kind()}) == 1
    assert repr(kind()).endswith("Nothing()")


def test_every_frozen_class_of_the_package_is_made_so() -> None:
    package = Path(frozen.__file__).parent
    others = [
        path.name
        for path in package.rglob("*.py")
        if path.name != "frozen.py"
        and "@dataclass(frozen=True, slots=True)" in (text := path.read_text())
        and "from sshvpn.frozen import dataclass" not in text
    ]
    assert others == []
