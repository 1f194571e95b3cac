"""Slack's ids. The first letter is the type of the object."""


def is_user(place: str) -> bool:
    """Return whether `place` is the id of a user. A message to a user is a direct message."""
    return place.startswith(("U", "W"))


def is_user_group(member: str) -> bool:
    return member.startswith("S")


def is_personal(place: str) -> bool:
    """Return whether `place` is a user or a direct message conversation, where every message notifies its reader."""
    return is_user(place) or place.startswith("D")
