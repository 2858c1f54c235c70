"""An S3 server on loopback, behind a proxy that fails, stalls and truncates replies at random by a seed."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec
import pytest

import shards.storage.store as store_module

FAULTS = ("500", "503", "reset", "stall", "cut", "short", "flip")
BUCKET = "bucket"


class _Handler(BaseHTTPRequestHandler):
    """Forwards one request, and may damage its reply."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.proxy.lock:
            self.proxy.requests.append((self.command, self.path, self.headers.get("Range", "")))
        fault = self.proxy.choose(self.command)
        try:
            self._answer(body, fault)
        except OSError:  # the client gave up
            self.close_connection = True

    def _answer(self, body: bytes, fault: str) -> None:
        if fault in ("500", "503"):
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if fault == "stall":
            time.sleep(self.proxy.stall_s)
        reply, content = self._forward(body)
        length, content = self._damaged(content, fault) if self.command == "GET" else (len(content), content)
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        stated = reply.getheader("Content-Length", "0") if self.command == "HEAD" else str(length)
        self.send_header("Content-Length", stated)
        self.end_headers()
        self.wfile.write(content)
        if fault == "cut":
            self.close_connection = True

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        upstream = http.client.HTTPConnection(*self.proxy.behind, timeout=30)
        # The server requires a name and checks no signature, so a web client can read, too.
        anyone = "AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/s3/aws4_request, Signature=0"
        upstream.request(self.command, self.path, body, {"Authorization": anyone, **dict(self.headers.items())})
        reply = upstream.getresponse()
        content = reply.read()
        upstream.close()
        return reply, content

    def _damaged(self, content: bytes, fault: str) -> tuple[int, bytes]:
        """Return the stated length and the content of a reply."""
        length = len(content)
        if fault == "short":
            content = content[: length // 2]
            length = len(content)
        elif fault == "cut":
            content = content[: length // 2]
        elif fault == "flip" and content:
            place = self.proxy.random_place(length)
            content = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        return length, content

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


class Proxy:
    """Forwards to the server behind it. A share `rate` of the requests meets one of `faults`."""

    def __init__(self, behind: tuple[str, int]) -> None:
        self.behind = behind
        self.rate = 0.0
        self.faults: tuple[str, ...] = FAULTS
        self.stall_s = 3.0
        self.fault_methods = ("GET", "HEAD", "PUT", "POST")
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and range of each request."""
        self.met: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._chances = random.Random(0)
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def random_place(self, length: int) -> int:
        """Return a random index below `length`."""
        return self._chances.randrange(length)

    def choose(self, method: str) -> str:
        """Return the fault for this request, "" for none."""
        with self.lock:
            if method not in self.fault_methods or self._chances.random() >= self.rate:
                return ""
            fault = self._chances.choice(self.faults)
            self.met[fault] += 1
            return fault

    def misbehave(self, rate: float, *faults: str, seed: int = 0) -> None:
        """Set the share of requests that meet one of `faults`, by default all, and clear the recorded requests."""
        with self.lock:
            self.rate, self.faults = rate, faults or FAULTS
            self._chances = random.Random(seed)
            self.requests, self.met = [], Counter()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def s3_settings(url: str) -> dict[str, Any]:
    """Return fsspec's settings for a server at this address, without botocore's own retries."""
    return {
        "endpoint_url": url,
        "key": "nobody",
        "secret": "nothing",
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}},
    }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Start one S3 server for all tests and return its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Return a proxy before an empty bucket, s3://bucket, with short pauses."""
    proxy = Proxy(s3_server)
    monkeypatch.setitem(fsspec.config.conf, "s3", s3_settings(proxy.url))
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(store_module, "ATTEMPT_S", 15.0)  # a busy machine is slow, too
    monkeypatch.setattr(store_module, "SLOWEST_BYTES_PER_S", 1e12)
    behind = "http://{}:{}".format(*s3_server)
    for method, path in (("POST", "/moto-api/reset"), ("PUT", f"/{BUCKET}")):
        urllib.request.urlopen(urllib.request.Request(behind + path, method=method, data=b"")).close()
    yield proxy
    proxy.close()
