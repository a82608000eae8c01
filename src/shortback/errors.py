"""Errors that are answered without a traceback."""


class UserError(ValueError):
    """What the caller wrote cannot be done; the message says what to write instead.

    The command line shows it as a line and ends with 2. A `ValueError` that is none is a fault of ours and keeps its
    traceback.
    """
