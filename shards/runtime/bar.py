"""The bar that all commands draw on a terminal."""

from __future__ import annotations

from rich.progress import Progress


class Bar(Progress):
    """A bar of rich, without the empty line that rich prints at the end where it cannot move the cursor."""

    def stop(self) -> None:
        """End the display."""
        self.live.stop()
