"""A web server that lacks a shard, cuts it short, changes it, is slow, or fails at first."""

import http.server
import os
import threading
from functools import partial
from pathlib import Path

import pytest

from shortback.data.shards import load_shards, store
from shortback.data.shards.index import INDEX, Index
from shortback.data.shards.store import WebStore
from shortback.errors import UserError


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


def all_bytes(data):
    return [split.image(i).numpy().tobytes() for split in (data.train, data.test) for i in range(len(split))]


def test_the_web_gives_what_the_folder_does(site, packed, tmp_path):
    data = load_shards(url=f"{site.url}/", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.tar"))  # none is copied before it is read
    assert all_bytes(data) == all_bytes(load_shards(packed))
    asked = list(site.asked)
    assert sorted(asked) == sorted(path.name for path in packed.iterdir())  # each once
    assert all_bytes(load_shards(url=site.url, cache_dir=tmp_path / "cache")) == all_bytes(load_shards(packed))
    assert site.asked[len(asked) :] == [INDEX]  # copies are kept


@pytest.mark.parametrize("fault", ["short", "changed", "silent", 503])
def test_what_happens_once_is_mended(site, packed, tmp_path, fault, caplog):
    site.faults["train-00001.tar"] = [fault]
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    data.train.store.silence = 0.5
    assert all_bytes(data) == all_bytes(load_shards(packed))
    assert site.asked.count("train-00001.tar") == 2
    assert "train-00001.tar" in caplog.text
    assert "asking again" in caplog.text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("short", r"ended after 1000 of \d+ bytes"),
        ("changed", "not those that index.json was written with"),
        ("silent", "no byte for"),
        (503, "503 Service Unavailable"),
        (404, "404 Not Found"),
    ],
)
def test_what_stays_wrong_is_named(site, tmp_path, fault, reason):
    site.faults["train-00001.tar"] = [fault] * 4
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    data.train.store.silence = 0.2
    with pytest.raises(OSError, match=f"train-00001.tar cannot be had: .*{reason}"):
        all_bytes(data)
    assert site.asked.count("train-00001.tar") == (1 if fault == 404 else 4)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match=r"http://127.0.0.1:9/index.json cannot be had: .*refused"):
        load_shards(url="http://127.0.0.1:9", cache_dir=tmp_path)
    with pytest.raises(UserError, match="must begin with http"):
        load_shards(url="ftp://127.0.0.1/x", cache_dir=tmp_path)


def test_shards_that_are_not_whole_are_named_before_training(packed):
    (packed / "train-00001.tar").unlink()
    with (packed / "train-00002.tar").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"train-00001.tar is missing, train-00002.tar has 1000 of \d+ bytes"):
        load_shards(packed)


def test_copies_stay_within_their_limit(site, packed, tmp_path):
    index = Index.from_text((packed / INDEX).read_text(), where="")
    shards = index.splits["train"].shards
    limit = 3 * max(shard.size for shard in shards)
    web = WebStore(site.url, tmp_path / "cache", limit=limit)
    kept = web.open(shards[0])
    for shard in shards:
        os.close(web.open(shard))
        assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")) <= limit
    assert not (tmp_path / "cache" / shards[0].name).exists()
    assert len(os.pread(kept, shards[0].size, 0)) == shards[0].size  # what is open can still be read
    os.close(kept)
    with pytest.raises(UserError, match=r"cache_gb=.* is too little: 16 shards are read side by side"):
        load_shards(url=site.url, cache_dir=tmp_path, cache_gb=limit / 1e9)
