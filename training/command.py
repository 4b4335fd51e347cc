"""What every script's command line does alike."""

import sys
from collections.abc import Callable

import datasets
import transformers

from hf_infomax import UsageError


def run(
    work: Callable[[list[str]], object], help_text: str | None, arguments: list[str], needs_arguments: bool = True
) -> int:
    """Call `work` with the arguments -> the exit status: 0 when done, 2 on a mistake that the user can mend, which is printed as
    its one sentence, 130 when interrupted. With --help, or without the arguments it needs, the help is printed instead."""
    if arguments[:1] in (["-h"], ["--help"]) or (needs_arguments and not arguments):
        print(help_text)
        return 0
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        work(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {interrupt}" if str(interrupt) else "interrupted", file=sys.stderr)
        return 130
    return 0
