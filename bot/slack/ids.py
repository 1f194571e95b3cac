"""The ids of Slack: their first letter is the kind of what they name."""


def is_user(place: str) -> bool:
    """Return whether it is the id of a user; a message to it opens a direct message."""
    return place.startswith(("U", "W"))


def is_user_group(member: str) -> bool:
    return member.startswith("S")


def is_personal(place: str) -> bool:
    """Return whether it is a user or a direct message, which notifies its reader independent of mentions."""
    return is_user(place) or place.startswith("D")
