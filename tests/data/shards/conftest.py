"""A folder of images of two classes, the shards it was packed into, and a web server that has them."""

import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortback.data.shards import pack_folder, store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root, rng = tmp_path / "pets", np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 3)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (70 + i % 3, 66, 3), dtype=np.uint8)
                suffix = ("jpg", "png", "JPEG")[i % 3]
                Image.fromarray(pixels).save(root / split / label / f"{i}.with.dots.{suffix}")
    return root


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    pack_folder(folder, tmp_path / "shards", shard_bytes=40_000)
    return tmp_path / "shards"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `faults` says what to do with the next requests for a name."""

    def __init__(self, *args, faults, asked, **settings):
        self.faults, self.asked = faults, asked
        super().__init__(*args, **settings)

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        self.asked.append(name)
        fault = self.faults.get(name, [None]).pop(0) if self.faults.get(name) else None
        if fault is None:
            return super().do_GET()
        content = (Path(self.directory) / name).read_bytes()
        if isinstance(fault, int):
            return self.send_error(fault)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "short":
            self.wfile.write(content[:1000])
        elif fault == "changed":
            self.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))
        elif fault == "silent":
            self.wfile.write(content[:1000])
            self.wfile.flush()
            threading.Event().wait(3)
        return None

    def log_message(self, *_):
        pass


class Site:
    def __init__(self, folder):
        self.faults, self.asked = {}, []
        handler = partial(Handler, directory=str(folder), faults=self.faults, asked=self.asked)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site(packed, monkeypatch):
    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    site = Site(packed)
    yield site
    site.server.shutdown()
    site.server.server_close()
