# SPDX-License-Identifier: GPL-2.0-only
"""vcs.record's classes are the standard library's: the same class bodies through both decorators, and every difference is a failure."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import operator
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from vcs import record
from vcs.config.model import ClusterConfig
from vcs.model import RingId

Decorator = Callable[..., Any]


def plain(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class Plain:
        """Told."""

        a: int
        b: str = "b"
        c: list[int] = field(default_factory=list)

        def twice(self) -> int:
            return 2 * self.a

    return Plain


def partial(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class Partial:
        shown: int
        hidden: int = field(repr=False)
        beside: int = field(default=3, compare=False)
        counted: int = field(default=4, hash=False)
        later: int = field(init=False, default=5)
        made: dict[str, int] = field(init=False, default_factory=dict, compare=False)

    return Partial


def own(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class Own:
        a: int
        b: int = 0

        def __repr__(self) -> str:
            return "mine"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and bool(self.a == other.a)

        def __hash__(self) -> int:
            return self.a

    return Own


def checked(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class Checked:
        a: int
        b: int

        def __post_init__(self) -> None:
            if self.a > self.b:
                raise ValueError("the wrong way round")

    return Checked


def one(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class One:
        a: float

    return One


def none(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class Nothing:
        pass

    return Nothing


def heir(decorator: Decorator, **how: Any) -> Any:
    @decorator(slots=True, **how)
    class Base:
        a: int
        b: int = 2

    @decorator(slots=True, **how)
    class Heir(Base):
        c: int = 3

    return Heir


BODIES: dict[Callable[..., Any], list[tuple[Any, ...]]] = {
    plain: [(1,), (1, "x"), (2, "b", []), (1, "b", [7])],
    partial: [(1, 2), (1, 2, 9), (1, 2, 3, 9), (2, 1)],
    own: [(1,), (1, 5), (2, 0)],
    checked: [(1, 2), (1, 3), (2, 2)],
    one: [(1.0,), (2.0,), (float("nan"),)],
    none: [()],
    heir: [(1,), (1, 5), (1, 2, 9)],
}
"Class body -> arguments that make objects of it."
HOW: list[dict[str, bool]] = [{}, {"frozen": True}, {"frozen": True, "order": True}, {"order": True}]
ORDERS = (operator.lt, operator.le, operator.gt, operator.ge)


def told(act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What comes of the call: a value, or the kind of the error."""
    try:
        return act(*arguments, **named)
    except Exception as error:
        return FrozenInstanceError if isinstance(error, FrozenInstanceError) else type(error)


def seen(cls: Any, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Everything that one can see of a class from outside."""
    objects = [cls(*row) for row in rows]
    facts: dict[str, Any] = {
        "slots": (cls.__slots__, hasattr(objects[0], "__dict__")),
        "match": cls.__match_args__,
        "fields": [(f.name, f.type, f.init, f.repr, f.compare, f.hash) for f in dataclasses.fields(cls)],
        "signature": str(inspect.signature(cls)),
        "annotations": cls.__init__.__annotations__,
        "names": (cls.__name__, cls.__qualname__, cls.__module__, cls.__init__.__module__),
        "repr": [repr(o) for o in objects],
        "asdict": [dataclasses.asdict(o) for o in objects],
        "replaced": [repr(dataclasses.replace(o)) for o in objects],
        "equal": [[a == b for b in objects] for a in objects],
        "other": (objects[0] == 1, objects[0] != 1, told(operator.lt, objects[0], 1)),
        "hash": [told(hash, o) == told(hash, copy.copy(o)) for o in objects],
        "same hash": [[told(hash, a) == told(hash, b) for b in objects] for a in objects],
        "order": [[[told(o, a, b) for o in ORDERS] for b in objects] for a in objects],
        "copies": [(repr(copy.copy(o)), repr(copy.deepcopy(o))) for o in objects],
        "too many": told(cls, *range(20)),
        "unknown": told(cls, *rows[0], nothing=1),
    }
    names = [f.name for f in dataclasses.fields(cls)]
    if names:
        facts["set"] = [told(setattr, objects[-1], n, 1) for n in names]
        facts["delete"] = [told(delattr, objects[-1], n) for n in names]
    return facts


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("body", BODIES, ids=lambda b: b.__name__)
def test_the_same_as_the_library(body: Callable[..., Any], how: dict[str, bool]) -> None:
    ours, theirs = (seen(body(d, **how), BODIES[body]) for d in (record.dataclass, dataclasses.dataclass))
    for name, value in theirs.items():
        assert ours[name] == value, name


def test_a_wrong_object_is_refused_by_post_init() -> None:
    with pytest.raises(ValueError, match="wrong way"):
        checked(record.dataclass, frozen=True)(2, 1)


def test_frozen_means_frozen() -> None:
    ring = RingId(3, 4)
    for name in ("seq", "nothing"):
        with pytest.raises(AttributeError):
            setattr(ring, name, 1)
    assert ring == RingId(3, 4)


def test_objects_go_through_pickle() -> None:
    assert pickle.loads(pickle.dumps(RingId(3, 4))) == RingId(3, 4)


def test_a_factory_makes_a_new_one_each_time() -> None:
    cls = plain(record.dataclass)
    assert cls(1).c is not cls(1).c


def test_the_configuration_is_one_of_ours() -> None:
    """Else this file would prove nothing: who imports the library's decorator pays for it at each start."""
    assert dataclasses.is_dataclass(ClusterConfig)
    assert ClusterConfig.__eq__.__code__.co_filename == record.__file__


def test_without_slots_it_is_refused() -> None:
    decorator: Decorator = record.dataclass
    with pytest.raises(TypeError, match="slots"):
        decorator(slots=False)
