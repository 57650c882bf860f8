"""A warning where lists are asked for of users whom a bundle has never seen."""

import warnings


class UnseenUsers(UserWarning):
    """Lists are asked for of users whom the bundle has never seen; a service answers `unseen_user`.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", UnseenUsers)  # where many are new on purpose
    """


def warn_of_unseen(unseen: int, users: int) -> None:
    """Warn if the bundle has never seen some of the users.

    Args:
        unseen: Their number.
        users: The number of all.
    """
    if unseen:
        who = "this user" if users == 1 else f"{unseen:,} of these {users:,} users"
        warnings.warn(
            f"recommend: the bundle has never seen {who}, so the list is that of a user without history; "
            "compare the id with those of the log",
            UnseenUsers,
            stacklevel=3,
        )
