"""The one exception that a user's mistake ends in."""


class UsageError(ValueError):
    """A mistake that the user can mend; the message is one sentence that names the thing and the way out.

    The scripts catch it (and nothing else), print the sentence without a traceback and exit with status 2. A subclass of
    `ValueError`, so that library users may catch it as what it is.
    """
