"""A server on loopback with the endpoints of the Hugging Face Hub that huggingface_hub calls to read and write files.

Written from huggingface_hub's own requests. Not covered: Xet storage (files take its other way, LFS), multi-part
uploads, redirects to a content network, buckets, pull requests and rate limits. A commit is all or nothing, as on the
hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_token_of_the_fake_hub"
SHA = "0123456789abcdef0123456789abcdef01234567"
_LFS = (".arrow", ".safetensors", ".bin", ".parquet")
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|preupload|commit)/([^/]+)(/.*)?)?"
)
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_LICENCES = {"apache-2.0", "mit", "llama2", "other"}


@dataclass
class HubRepository:
    """Files of one repository, and what each commit added."""

    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: list[list[str]] = field(default_factory=list)


@dataclass
class FakeHub:
    """Repositories by type and name, and the requests so far."""

    url: str = ""
    repositories: dict[tuple[str, str], HubRepository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, and range of each request."""
    fault: Callable[[str, str], int | None] = lambda method, path: None
    """Status that a request gets in place of its answer; None for none."""

    def create(self, kind: str, name: str) -> HubRepository:
        """Make an empty repository of `models` or `datasets`."""
        return self.repositories.setdefault((kind, name), HubRepository())


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", body: Any = None) -> None:
        super().__init__(status)
        self.status, self.code, self.body = status, code, body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, unquote(path), self.headers.get("Range", "")))
        try:
            if status := self.hub.fault(self.command, path):
                raise _Refusal(status)
            answer = self._answer(path, body)
        except _Refusal as refusal:
            self._send(refusal.status, json.dumps(refusal.body or {}).encode(), {"X-Error-Code": refusal.code})
            return
        if isinstance(answer, bytes):
            self._send_range(answer)
        else:
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    do_GET = do_POST = do_PUT = do_HEAD = _any

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_range(self, content: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None:
            self._send(200, content, {"ETag": '"x"'})
            return
        begin, end = int(match[1]), min(int(match[2]) + 1, len(content))
        self._send(206, content[begin:end], {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"})

    def _answer(self, path: str, body: bytes) -> Any:
        if self.command in ("POST", "PUT") and "paths-info" not in path:
            self._require_token()
        if path == "/api/validate-yaml":
            return validate_card(json.loads(body))
        if path.startswith("/lfs/"):
            return self._store(path.removeprefix("/lfs/"), body)
        if match := _BATCH.fullmatch(path):
            return self._batch(json.loads(body))
        if match := _API.fullmatch(path):
            kind, name, action, revision, rest = match.groups()
            repository = self._repository(kind, name, revision)
            return self._api(repository, name, action, unquote(rest or "").strip("/"), body)
        if match := _RESOLVE.fullmatch(path):
            repository = self._repository("datasets" if match[1] else "models", match[2], match[3])
            if (name := unquote(match[4])) not in repository.files:
                raise _Refusal(404, "EntryNotFound")
            return repository.files[name]
        raise AssertionError(f"the fake hub has no {self.command} {path}")

    def _require_token(self) -> None:
        if self.path.startswith("/lfs/"):
            return  # a signed address
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refusal(403, body={"error": "You have no write access"})

    def _repository(self, kind: str, name: str, revision: str | None) -> HubRepository:
        if (kind, name) not in self.hub.repositories:
            raise _Refusal(401, "RepoNotFound")
        if revision not in (None, "main"):
            raise _Refusal(404, "RevisionNotFound")
        return self.hub.repositories[kind, name]

    def _api(self, repository: HubRepository, name: str, action: str | None, rest: str, body: bytes) -> Any:
        if action in (None, "revision"):
            return {"id": name, "sha": SHA, "private": False, "siblings": [], "tags": [], "downloads": 0, "likes": 0}
        if action == "tree":
            return _tree(repository, rest)
        if action == "paths-info":
            paths = parse_qs(body.decode())["paths"]
            return [_file_info(repository, path) for path in paths if path in repository.files]
        if action == "preupload":
            files = json.loads(body)["files"]
            return {
                "files": [{"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False} for f in files]
            }
        return self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def _batch(self, request: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for item in request["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            objects.append({**item, **({} if item["oid"] in self.hub.blobs else {"actions": upload})})
        return {"transfer": "basic", "objects": objects}

    def _store(self, oid: str, body: bytes) -> dict[str, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refusal(400)
        self.hub.blobs[oid] = body
        return {}

    def _commit(self, repository: HubRepository, lines: list[dict[str, Any]]) -> dict[str, Any]:
        added: dict[str, bytes] = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] not in self.hub.blobs:
                raise _Refusal(400, body={"error": f"{value['path']}: its content was not sent"})
            else:
                added[value["path"]] = self.hub.blobs[value["oid"]]
                repository.lfs.add(value["path"])
        repository.files.update(added)
        repository.commits.append(list(added))
        return {"commitUrl": f"{self.hub.url}/x/y/commit/{SHA}", "commitOid": SHA, "pullRequestUrl": None}


def _mode(path: str) -> str:
    return "lfs" if path.endswith(_LFS) else "regular"


def _file_info(repository: HubRepository, path: str) -> dict[str, Any]:
    content = repository.files[path]
    lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    more = {"lfs": lfs} if path in repository.lfs else {}
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest(), **more}


def _tree(repository: HubRepository, folder: str) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = [path for path in repository.files if path.startswith(prefix)]
    if folder and not inside:
        raise _Refusal(404, "EntryNotFound")
    folders = {prefix + path.removeprefix(prefix).split("/")[0] for path in inside if "/" in path.removeprefix(prefix)}
    files = [_file_info(repository, path) for path in inside if "/" not in path.removeprefix(prefix)]
    return [*files, *({"type": "directory", "path": name, "oid": SHA} for name in sorted(folders))]


def validate_card(request: dict[str, str]) -> dict[str, Any]:
    """Answer as the hub does to the front matter of a card: errors are a refusal."""
    fields = yaml.safe_load(request["content"].split("---\n")[1])
    licences = fields["license"] if isinstance(fields["license"], list) else [fields["license"]]
    errors = [f"license {name}" for name in licences if name not in _LICENCES]
    if "other" in licences and not fields.get("license_name"):
        errors.append("license_name")
    if request["repoType"] == "model" and isinstance(fields["license"], list):
        errors.append("license")
    ids = [*fields.get("datasets", []), *([fields["base_model"]] if "base_model" in fields else [])]
    errors += [name for name in ids if not re.fullmatch(r"[\w.-]+/[\w.-]+", name)]
    if errors:
        raise _Refusal(400, body={"errors": [{"message": error} for error in errors]})
    return {"errors": [], "warnings": []}


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve an empty hub."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Let huggingface_hub talk to a fake hub, with a token that may write."""
    from huggingface_hub import constants

    import shards.storage.store as store_module

    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("huggingface.co")[2]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
        yield hub
