"""The decorator of the frozen records."""

from dataclasses import field, replace

from manifests.frozen import frozen


@frozen
class Point:
    """A record for these tests."""

    x: int
    names: tuple[str, ...] = field(default=())


@frozen
class Place(Point):
    """The same fields in another class."""


def test_records_are_compared_and_hashed_by_their_fields() -> None:
    """Equal fields make equal records of the same class, and of no other class."""
    assert Point(1, ("a",)) == Point(1, ("a",)) != Point(2, ("a",))
    assert len({Point(1), Point(1), Point(1, ("a",))}) == 2
    assert Point(1) != Place(1)


def test_a_record_is_shown_and_changed_like_a_dataclass() -> None:
    """It is printed as the call that creates it, and `dataclasses.replace` copies it."""
    assert repr(Place(1, ("a",))) == "Place(x=1, names=('a',))"
    assert replace(Point(1, ("a",)), x=2) == Point(2, ("a",))
