# SPDX-License-Identifier: GPL-2.0-only
"""``@dataclass`` that is made quickly: what the standard library's makes of a class with ``slots=True``, for a sixth of the compiling.

A daemon that is started again serves nobody until it is there (SAFETY S16), and half of what its start computed was dataclasses: the
library writes each method of each class as text and compiles it, six for a frozen one. Here ``__init__`` alone is text, for its
signature and its speed; the other methods are closures, and those that compare get all fields in one step. Whoever checks types sees
the library's own decorator, and ``fields()``, ``replace()``, ``asdict()``, copies and pickles know no difference
(tests/unit/test_record.py).

Slots are always on; ``InitVar`` and ``kw_only`` are not there, nobody has asked for them.
"""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import MISSING, Field, FrozenInstanceError, field, fields
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field", "fields"]

_store = object.__setattr__


class _Factory:
    """Stands in a signature for a value that is made at each call; shown as the library shows it."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _key(names: list[str]) -> Any:
    """An object -> the values of its fields ``names``, as a tuple."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    if not names:
        return lambda _self: ()
    one = operator.attrgetter(names[0])
    return lambda self: (one(self),)


def _init(made: type, of: tuple[Field[Any], ...], frozen: bool) -> Any:
    scope: dict[str, Any] = {"__name__": made.__module__, "_store": _store, "_factory": _FACTORY}
    parameters, lines = ["self"], []
    for n, f in enumerate(of):
        value = f.name
        if f.default_factory is not MISSING:
            scope[f"_make{n}"] = f.default_factory
            value = f"_make{n}() if {f.name} is _factory else {f.name}" if f.init else f"_make{n}()"
        elif f.default is not MISSING:
            scope[f"_default{n}"] = f.default
            value = f.name if f.init else f"_default{n}"
        elif not f.init:
            continue
        if f.init:
            optional = f"=_default{n}" if f.default is not MISSING else "=_factory" if f.default_factory is not MISSING else ""
            parameters.append(f.name + optional)
        lines.append(f" _store(self, {f.name!r}, {value})" if frozen else f" self.{f.name} = {value}")
    if hasattr(made, "__post_init__"):
        lines.append(" self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or " pass"), scope)
    init = scope["__init__"]
    init.__annotations__ = {f.name: f.type for f in of if f.init} | {"return": None}
    return init


def _shown(names: list[str]) -> Any:
    @recursive_repr()
    def __repr__(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{n}={getattr(self, n)!r}' for n in names])})"

    return __repr__


def _compared(name: str, key: Any) -> Any:
    compare = getattr(operator, name)

    def method(self: object, other: object) -> Any:
        return compare(key(self), key(other)) if other.__class__ is self.__class__ else NotImplemented

    method.__name__ = name
    return method


def _refuse_set(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, f.name) for f in fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for f, value in zip(fields(self), state, strict=True):
        _store(self, f.name, value)


def _made(cls: type, frozen: bool, order: bool) -> type:
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else the library looks for a signature to tell
    own = set(cls.__dict__)
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    of = fields(made)
    key = _key([f.name for f in of if f.compare])
    methods: dict[str, Any] = {"__init__": _init(made, of, frozen), "__repr__": _shown([f.name for f in of if f.repr])}
    methods |= {name: _compared(name, key) for name in ("__eq__", *(("__lt__", "__le__", "__gt__", "__ge__") if order else ()))}
    if frozen:
        hashed = _key([f.name for f in of if (f.compare if f.hash is None else f.hash)])
        methods["__hash__"] = lambda self: hash(hashed(self))
        methods |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete, "__getstate__": _state, "__setstate__": _restore}
    elif "__eq__" not in own:
        methods["__hash__"] = None
    for name, method in methods.items():
        if name not in own:
            setattr(made, name, method)
    kind: type = made
    return kind


if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, slots, frozen=False, order=False):
        """The decorator. ``slots`` must be True: it is written so that whoever checks types knows of it."""
        if not slots:
            raise TypeError("slots=True is the only kind")
        return lambda cls: _made(cls, frozen, order)
