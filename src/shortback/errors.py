"""Errors that are reported without a traceback."""


class UserError(ValueError):
    """A request that cannot be fulfilled as written; the message says what to write instead.

    The command line prints the message alone and exits with status 2. Any other `ValueError` is a bug in Shortback and
    keeps its traceback.
    """
