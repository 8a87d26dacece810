"""A registry of the npm packages that Debian has, for one guest: `npm-registry.py PORT`.
`npm-registry.py names` says what a project depends on that needs many of them, and
`npm-registry.py check DIRECTORY` compares what npm installed there with them."""

import base64
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import urllib.parse

SOURCE = "/usr/share/nodejs"
# Larger packages take long, and do nothing that many small ones do not.
MOST_FILES = 60
MOST_PACKAGES = 40
KEPT = ["name", "version", "main", "module", "exports", "imports", "type", "bin", "browser"]


def found():
    """Directories by the names of the packages in them."""
    packages = {}
    for entry in sorted(os.listdir(SOURCE)):
        inner = [f"{entry}/{name}" for name in sorted(os.listdir(f"{SOURCE}/{entry}"))] if entry[0] == "@" else [entry]
        for name in inner:
            place = f"{SOURCE}/{name}"
            try:
                with open(f"{place}/package.json") as file:
                    own = json.load(file)
            except (OSError, ValueError):
                continue
            # Others are parts of packages, or have no version that npm takes.
            if os.path.islink(place) or own.get("name") != name or own.get("version", "").count(".") != 2:
                continue
            if sum(len(names) for _, _, names in os.walk(place)) <= MOST_FILES:
                packages[name] = own
    return packages


PACKAGES = found()


def manifest(name):
    own = PACKAGES[name]
    kept = {key: own[key] for key in KEPT if key in own}
    # Debian's packages fit each other, whatever versions they ask for.
    kept["dependencies"] = {other: "*" for other in own.get("dependencies", {}) if other in PACKAGES and other != name}
    return kept


def files(name):
    """Paths in a package and what is there, without what other packages have."""
    place = f"{SOURCE}/{name}"
    for directory, inner, names in os.walk(place):
        inner[:] = sorted(other for other in inner if other != "node_modules")
        for file in sorted(names):
            full = f"{directory}/{file}"
            if os.path.isfile(full):
                path = os.path.relpath(full, place)
                if path == "package.json":
                    yield path, json.dumps(manifest(name)).encode()
                else:
                    with open(full, "rb") as content:
                        yield path, content.read()


ARCHIVES = {}


def archive(name):
    if name not in ARCHIVES:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            for path, content in files(name):
                entry = tarfile.TarInfo(f"package/{path}")
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
        ARCHIVES[name] = packed.getvalue()
    return ARCHIVES[name]


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = urllib.parse.unquote(self.path.split("?")[0]).lstrip("/")
        if name.startswith("-/") and name[2:] in PACKAGES:
            return self.send(200, "application/octet-stream", archive(name[2:]))
        if name not in PACKAGES:
            return self.send(404, "application/json", b"{}")
        digest = base64.b64encode(hashlib.sha512(archive(name)).digest()).decode()
        host = f"http://127.0.0.1:{self.server.server_port}"
        version = PACKAGES[name]["version"]
        dist = {"tarball": f"{host}/-/{name}", "integrity": f"sha512-{digest}"}
        versions = {version: {**manifest(name), "dist": dist}}
        said = {"name": name, "dist-tags": {"latest": version}, "versions": versions}
        return self.send(200, "application/json", json.dumps(said).encode())

    def send(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def check(directory):
    """Each package that is wanted is there, with its files and no others."""
    with open(f"{directory}/package.json") as file:
        wanted = [name for name in json.load(file)["dependencies"]]
    seen, count = set(), 0
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        wanted.extend(manifest(name)["dependencies"])
        place = f"{directory}/node_modules/{name}"
        expected = dict(files(name))
        for path, content in expected.items():
            with open(f"{place}/{path}", "rb") as file:
                assert file.read() == content, f"{name}/{path} has other bytes"
        there = {os.path.relpath(f"{at}/{file}", place) for at, _, names in os.walk(place) for file in names}
        assert there == set(expected), f"{name}: {sorted(there ^ set(expected))[:3]}"
        count += len(expected)
    for name in os.listdir(f"{directory}/node_modules/.bin"):
        assert os.access(f"{directory}/node_modules/.bin/{name}", os.X_OK), f".bin/{name} cannot be run"
    print(f"{len(seen)} packages, {count} files")


if sys.argv[1] == "check":
    check(sys.argv[2])
elif sys.argv[1] == "names":
    # The workspace needs the last.
    names = sorted(PACKAGES)[:MOST_PACKAGES] + ["semver"]
    print(json.dumps({name: "*" for name in names}))
else:
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry).serve_forever()
