"""Record: the one base of dlwhy's immutable, comparable, typed records.

A record is a tuple whose places have names. Defining one costs a few microseconds where a frozen dataclass costs
more than a millisecond, and building one costs about what a tuple does; both matter because a check must start in
tens of milliseconds. Fields are the class's annotations, in order; a value given in the class body is the default.
"""

from __future__ import annotations

from _operator import itemgetter  # operator itself is a file of Python around this, and every command imports it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform

    _Base = tuple[Any, ...]  # a base that is an expression would be Any, and every misspelt field would pass
else:
    _Base = tuple

    def dataclass_transform(**_: object):  # noqa: ANN201, D103 -- what type checkers see stands above
        return lambda cls: cls


@dataclass_transform(frozen_default=True, eq_default=True)
class _RecordType(type):
    """Turns annotations into named tuple places while the class is made (slots cannot be added later)."""

    def __new__(mcls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _RecordType:
        fields = tuple(space.get("__annotations__", ()))
        defaults = {field: space.pop(field) for field in fields if field in space}
        space["__slots__"] = ()
        space["_fields"] = space["__match_args__"] = fields
        space["_defaults"] = defaults
        for place, field in enumerate(fields):
            space[field] = property(itemgetter(place))
        return super().__new__(mcls, name, bases, space)


class Record(_Base, metaclass=_RecordType):
    """Base of all records: immutable, equal when type and fields are equal, hashable when the fields are."""

    if TYPE_CHECKING:
        _fields: ClassVar[tuple[str, ...]]
        _defaults: ClassVar[dict[str, Any]]
    else:

        def __new__(cls, *args, **named):  # noqa: ANN002, ANN003, ANN204, D102 -- type checkers see the fields
            fields = cls._fields
            if len(args) == len(fields) and not named:
                return tuple.__new__(cls, args)
            values = dict(zip(fields, args, strict=False))
            defaults = cls._defaults
            try:
                rest = [named.pop(f) if f in named else defaults[f] for f in fields[len(args) :]]
            except KeyError as missing:
                raise TypeError(f"{cls.__name__}() misses {missing}") from None
            if named or len(args) > len(fields):
                raise TypeError(f"{cls.__name__}() got unexpected {sorted(named) or args[len(fields) :]}")
            return tuple.__new__(cls, (*values.values(), *rest))

        def __getnewargs__(self):  # noqa: ANN204 -- as above
            return tuple(self)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self).__name__, tuple(self)))

    def __repr__(self) -> str:
        inner = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({inner})"

    def but(self, **changes: Any) -> Self:
        """Return a copy of this record with some fields changed.

        Raises `TypeError` for a name that is no field.
        """
        values = [changes.pop(field, value) for field, value in zip(self._fields, self, strict=True)]
        if changes:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(changes))}")
        return type(self)(*values)
