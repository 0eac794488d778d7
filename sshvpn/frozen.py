"""``dataclass(frozen=True, slots=True)``, made in an eighth of the time.

The standard library writes the source of six methods for each class and compiles it: half a
millisecond each, a third of what a supervisor, which has a hundred of them, took to load, and a
megabyte. Here the classes are the same dataclasses (``fields``, ``replace``, ``asdict``, ``match``
work), but share methods that go over their fields. What that costs is some microseconds where one
is made.

For a type checker it is the standard library's. What it makes is not to be subclassed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 (it is exported)
else:

    def dataclass(*, frozen: Literal[True], slots: Literal[True]) -> Callable[[type[T]], type[T]]:
        """Return what makes a frozen dataclass with slots of a class."""
        del frozen, slots
        return _made


def _made(kind: type[T]) -> Any:
    # Without a text of its own it would get its signature, which takes as long as all the rest.
    kind.__doc__ = kind.__doc__ or kind.__name__
    own = set(vars(kind))
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(kind)
    compared = _getter([field.name for field in dataclasses.fields(made) if field.compare])

    def __eq__(self: object, other: object) -> bool:  # noqa: N807
        if other.__class__ is not self.__class__:
            return NotImplemented
        return compared(self) == compared(other)

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(compared(self))

    methods = {
        "__init__": _initializer(made),
        "__setattr__": _refuse_set,
        "__delattr__": _refuse_delete,
        "__repr__": _repr,
        "__eq__": __eq__,
        "__hash__": __hash__,
        "__reduce__": _reduce,
    }
    for name, method in methods.items():
        if name not in own:
            setattr(made, name, method)
    return made


def _initializer(kind: type) -> Callable[..., None]:
    """Return the ``__init__`` that sets the fields of ``kind``, by position or by name."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    names = tuple(fields)
    # The slots themselves, which know nothing of what is refused below.
    setters = {name: getattr(kind, name).__set__ for name in names}
    finish = getattr(kind, "__post_init__", None)

    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        if len(args) > len(names):
            raise TypeError(f"{kind.__name__} has {len(names)} fields, and {len(args)} were given")
        for name, value in zip(names, args):  # noqa: B905 (3.10; the rest follows)
            setters[name](self, value)
        for name in names[len(args) :]:
            value = kwargs.pop(name) if name in kwargs else _default(kind, fields[name])
            setters[name](self, value)
        if kwargs:
            raise TypeError(f"{kind.__name__}: {', '.join(kwargs)}: no such field, or given twice")
        if finish is not None:
            finish(self)

    return __init__


def _default(kind: type, field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"{kind.__name__} wants {field.name}")


def _refuse_set(self: object, name: str, value: object) -> None:
    del self, value
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> None:
    del self
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _getter(names: Sequence[str]) -> Callable[[object], object]:
    return attrgetter(*names) if names else lambda _: None


def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _reduce(self: Any) -> tuple[object, ...]:
    values = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
    return self.__class__, values
