"""The file that an engine's processes print to, and the cause of a failure found in it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_CAUSE_CHARACTERS = 300
_PREFIX = re.compile(r"^\([^)]*pid=\d+\) ?")
"""What vLLM puts before each line of its processes."""
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (\[[^\]]*\])+ ?")
"""What vLLM's logger puts before each line."""
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Killed|Exit))(?:: (.*))?$")
"""The last line of a traceback: name and message."""
_NOT_THE_CAUSE = ("initialization failed", "See root cause", "See stack trace")
"""Parts of messages that point to another message."""


class EngineLog:
    """A temporary file with all that an engine and its processes print; kept until `discard`."""

    def __init__(self, name: str) -> None:
        """Create the file.

        Args:
            name: Name of the engine, for the file's name.
        """
        number, path = tempfile.mkstemp(prefix=f"teacher-dump-{name}-", suffix=".log")
        os.close(number)
        self.path = Path(path)

    @contextlib.contextmanager
    def receiving(self) -> Iterator[None]:
        """Send stdout and stderr of this process to the file, and of all processes that it starts meanwhile.

        The processes inherit the file and go on writing to it: what they print later stays off the terminal too.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(1), os.dup(2)]
        number = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.dup2(number, 1)
        os.dup2(number, 2)
        os.close(number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for number in kept:
                os.close(number)

    def cause(self, error: BaseException) -> str:
        """Return one line that says why the engine failed.

        Args:
            error: What was raised in this process. It is the cause where the file names none: an engine fails in a
                process of its own, and what reaches this one often says only that.
        """
        said = str(error).strip()
        if said and not any(part in said for part in _NOT_THE_CAUSE):
            return _one_line(type(error).__name__, said)
        try:
            lines = self.path.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            match = _EXCEPTION.match(_LEVEL.sub("", _PREFIX.sub("", line)).strip())
            if match and not any(part in line for part in _NOT_THE_CAUSE):
                return _one_line(match[1], match[2] or "")
        return _one_line(type(error).__name__, said)

    def discard(self) -> None:
        """Remove the file. Processes that still print lose nothing that is wanted."""
        self.path.unlink(missing_ok=True)


def _one_line(name: str, message: str) -> str:
    words = " ".join(message.split())
    if len(words) > _CAUSE_CHARACTERS:
        words = words[:_CAUSE_CHARACTERS] + "..."
    return f"{name}: {words}" if words else name
