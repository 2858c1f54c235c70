"""A web server on loopback that knows no ranges. The first replies for each file are damaged, each in another way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = ("503", "flip", "cut", "none")
"""What the first, second, ... GET of a file meets; the last one for all later ones."""


class _WholeFiles(BaseHTTPRequestHandler):
    folder: Path
    faults: tuple[str, ...]
    asked: Counter[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("none")

    def do_GET(self) -> None:
        count = self.asked[self.path]
        self.asked[self.path] += 1
        self._answer(self.faults[min(count, len(self.faults) - 1)])

    def _answer(self, fault: str) -> None:
        path = self.folder / self.path.lstrip("/")
        if fault == "503" or not path.is_file():
            self.send_response(503 if fault == "503" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        if fault == "flip":
            content = content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        self.close_connection = True


@contextmanager
def web_server(folder: Path, *, faults: tuple[str, ...] = FAULTS) -> Iterator[tuple[str, Counter[str]]]:
    """Serve a folder; yield the address and the number of GETs by path."""
    asked: Counter[str] = Counter()
    handler = type("Handler", (_WholeFiles,), {"folder": folder, "faults": faults, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
