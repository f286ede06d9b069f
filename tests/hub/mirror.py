"""A hub of our own on loopback: as much of the Hugging Face hub's HTTP interface as downloads use.

Large files (weights, Parquet) are answered as the hub does: a redirect to another address, with their size and
SHA-256 in headers. An unknown repository is a 401, as the hub says to whoever is not logged in.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet")
TOKEN = "hf_reader"  # the one token that opens the gated repositories
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repo:
    """Branches by name, and the folder of each commit."""

    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Path] = field(default_factory=dict)


class Mirror:
    """Repositories served from folders. requests: (method, path) of each request so far.

    faults: what goes wrong with a file, by the end of its path: "cut" (the connection breaks half-way) or
    "short" (half of it, as if it were the whole).
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}  # old names, such as "gpt2"
        self.requests: list[tuple[str, str]] = []
        self.faults: dict[str, str] = {}
        self.broken = False  # answers 503 to everything
        mirror = self

        class Handler(_Handler):
            hub = mirror

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.store = f"http://localhost:{self.server.server_port}"  # to a client it is another host
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def add(self, name: str, folder: Path, revision: str = "main", *, data: bool = False, gated: bool = False) -> str:
        """Serve a folder as a commit that the branch `revision` points to; returns the commit."""
        repo = self.repos.setdefault(f"{'datasets' if data else 'models'}/{name}", Repo())
        content = hashlib.sha1(f"{name}/{revision}".encode())
        for file in _files(folder):
            content.update(file.encode() + (folder / file).read_bytes())
        commit = content.hexdigest()
        repo.refs[revision], repo.commits[commit], repo.gated = commit, folder, gated
        return commit

    def count(self, end: str, method: str = "GET") -> int:
        """How many requests asked for a path with this end."""
        return sum(verb == method and path.endswith(end) for verb, path in self.requests)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, name: str) -> dict[str, object]:
    content = (folder / name).read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": oid}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    hub: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        self.hub.requests.append((self.command, url.path))
        if self.hub.broken:
            return self._refuse(503, "", "Service Unavailable")
        parts = [part for part in url.path.split("/") if part]
        if parts[:1] == ["cdn"]:
            return self._file("/".join(parts[1:-1]), Path(unquote(parts[-1])))
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            return self._api(parts[1], parts[2:], body)
        if "resolve" in parts:
            at = parts.index("resolve")
            kind, names = ("datasets", parts[1:at]) if parts[0] == "datasets" else ("models", parts[:at])
            return self._resolve(
                f"{kind}/{'/'.join(names)}", unquote(parts[at + 1]), unquote("/".join(parts[at + 2 :]))
            )
        return self._refuse(404, "", "Not Found")

    do_HEAD = do_POST = do_GET

    def _api(self, kind: str, parts: list[str], body: bytes) -> None:
        verbs = [i for i, part in enumerate(parts) if part in ("revision", "tree", "paths-info", "refs")]
        at = verbs[0] if verbs else len(parts)
        name = "/".join(parts[:at])
        verb, rest = (parts[at], [unquote(part) for part in parts[at + 1 :]]) if verbs else ("revision", ["main"])
        if name in self.hub.moved:
            old, new = f"/api/{kind}/{name}", f"/api/{kind}/{self.hub.moved[name]}"
            return self._send(307, b"", {"Location": self.path.replace(old, new)})
        repo = self._repo(f"{kind}/{name}")
        if repo is None:
            return None
        if verb == "refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.refs.items()]
            return self._json({"branches": refs, "converts": [], "tags": []})
        commit = self._commit(repo, rest[0])
        if commit is None:
            return None
        folder = repo.commits[commit]
        if verb == "revision":
            return self._json(
                {
                    "_id": "0",
                    "id": name,
                    "sha": commit,
                    "private": False,
                    "gated": "manual" if repo.gated else False,
                    "disabled": False,
                    "lastModified": DATE,
                    "createdAt": DATE,
                    "tags": [],
                    "siblings": [{"rfilename": file} for file in _files(folder)],
                }
            )
        if verb == "paths-info":
            asked = parse_qs(body.decode())["paths"]
            there = [file for file in _files(folder) if file in asked]
            folders = [path for path in asked if (folder / path).is_dir()]
            entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
            return self._json(entries + [_entry(folder, file) for file in there])
        under = "/".join(rest[1:])
        if not (folder / under).is_dir():
            return self._refuse(404, "EntryNotFound", f"{under} does not exist on {rest[0]}", commit)
        recursive = "recursive=true" in urlsplit(self.path).query.lower()
        found: list[dict[str, object]] = []
        for path in sorted((folder / under).rglob("*") if recursive else (folder / under).iterdir()):
            name = path.relative_to(folder).as_posix()
            where = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            found.append(_entry(folder, name) if path.is_file() else where)
        return self._json(found)

    def _resolve(self, name: str, revision: str, file: str) -> None:
        kind, _, short = name.partition("/")
        if short in self.hub.moved:
            return self._send(307, b"", {"Location": self.path.replace(short, self.hub.moved[short], 1)})
        repo = self._repo(name)
        if repo is None:
            return None
        if repo.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 403 if "Authorization" in self.headers else 401
            return self._refuse(status, "GatedRepo", f"Access to {kind} {short} is restricted")
        commit = self._commit(repo, revision)
        if commit is None:
            return None
        path = repo.commits[commit] / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found", commit)
        entry = _entry(repo.commits[commit], file)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if "lfs" not in entry:
            return self._file(str(entry["oid"]), path, headers)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        where = f"{self.hub.store}/cdn/{sha}/{str(path).replace('/', '%2F')}"
        headers |= {"X-Linked-Size": str(entry["size"]), "X-Linked-ETag": f'"{sha}"', "Location": where}
        return self._send(302, b"", headers)

    def _repo(self, name: str) -> Repo | None:
        if name not in self.hub.repos:
            self._refuse(401, "RepoNotFound", "Repository not found")
        return self.hub.repos.get(name)

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit

    def _file(self, etag: str, path: Path, headers: dict[str, str] | None = None) -> None:
        content = path.read_bytes()
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **(headers or {})}
        half = len(content) // 2
        fault = next((how for end, how in self.hub.faults.items() if path.as_posix().endswith(end)), None)
        if fault == "short" and self.command == "GET":
            content = content[:half]
        status, start, end = 200, 0, len(content)
        if asked := self.headers.get("Range", "").removeprefix("bytes="):
            first, _, last = asked.partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._send(status, content[start:end], headers, stop=max(0, half - start) if fault == "cut" else None)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {key: value for key, value in headers.items() if value})

    def _send(self, status: int, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        """stop: how many bytes of the body go out before the connection breaks."""
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop])
            if stop is not None and stop < len(body):
                self.close_connection = True


def point_to(mirror: Mirror, cache: Path, patch: Any) -> None:
    """Have huggingface_hub and datasets use the mirror and an empty cache (both read HF_ENDPOINT on import).

    patch: pytest's monkeypatch.
    """
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", mirror.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", mirror.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.delenv("HF_TOKEN", raising=False)
    if importlib.util.find_spec("datasets"):
        from datasets import config

        patch.setattr(config, "HF_ENDPOINT", mirror.url)
        patch.setattr(config, "HUB_DATASETS_URL", mirror.url + "/datasets/{repo_id}/resolve/{revision}/{path}")
        patch.setattr(config, "HF_DATASETS_CACHE", cache / "datasets")
        patch.setattr(config, "DOWNLOADED_DATASETS_PATH", cache / "datasets" / "downloads")
        patch.setattr(config, "HF_HUB_OFFLINE", False)
