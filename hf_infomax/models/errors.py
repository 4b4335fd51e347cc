"""The one exception that a user's mistake ends in, and the sentence for a name that does not exist."""

import difflib
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class UsageError(ValueError):
    """A mistake that the user can mend; the message is one sentence that names the thing and the way out.

    The scripts catch it (and nothing else), print the sentence without a traceback and exit with status 2. A subclass of
    `ValueError`, so that library users may catch it as what it is.
    """


def unknown_name(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """One sentence for a name that does not exist, with the closest one that does, or all of them where they are few."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if len(known) <= 16:
        return UsageError(f"Unknown {kind} '{name}': choose one of {', '.join(known)}.")
    hint = f"did you mean {' or '.join(close)}?" if close else f"{len(known)} names are known."
    return UsageError(f"Unknown {kind} '{name}': {hint}")


def choose(kind: str, name: str, options: dict[str, Any]) -> Any:
    """The option of that name, or a `UsageError` that lists the names."""
    if name not in options:
        raise unknown_name(kind, name, tuple(options))
    return options[name]


def library(module: str, who: str, remedy: str) -> ModuleType:
    """A library that most users never need, imported when it is used.

    Raises:
        UsageError: it is not installed; says who needs it, and what to do.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{who} needs {module} ({error}): {remedy}.") from error
