"""A web server that lacks a shard, cuts it short, changes it, is slow, or fails at first."""

import contextlib
import errno
import http.client
import os
import ssl
from pathlib import Path

import pytest
import torch

from shortback.data.order import SHARDS_MIXED
from shortback.data.shards import load_shards, store
from shortback.data.shards.index import INDEX, Index
from shortback.data.shards.store import WebStore
from shortback.errors import UserError


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
    assert "trying again" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ssl.SSLError(1, "bad record mac"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
    ids=repr,
)
def test_the_network_may_fail_in_mid_shard(site, packed, tmp_path, monkeypatch, caplog, error):
    data, usual = load_shards(url=site.url, cache_dir=tmp_path / "cache"), http.client.HTTPResponse.read
    times = [1]

    def fails(answer, *amount):
        if times[0]:
            times[0] -= 1
            raise error
        return usual(answer, *amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", fails)
    assert all_bytes(data) == all_bytes(load_shards(packed))
    assert f"{error}; trying again" in caplog.text
    times[0] = 4
    (data.train.store.folder / "train-00000.tar").unlink()
    with pytest.raises(OSError, match=r"train-00000\.tar cannot be fetched: .*, in each of 4 attempts"):
        data.train.store.open(data.train.split.shards[0])


def test_a_full_disk_is_not_taken_for_the_network(site, tmp_path, monkeypatch):
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(store, "replacing", lambda path: contextlib.nullcontext(Path("/dev/full")))
    with pytest.raises(OSError, match=r"the disk is full: the copy of train-00000\.tar cannot be written"):
        data.train.image(0)
    assert site.asked.count("train-00000.tar") == 1


def test_places_that_are_wrong_are_asked_for_again_and_not_kept(site, packed, tmp_path, caplog):
    site.faults["train.npz"] = ["changed"]
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    assert all_bytes(data) == all_bytes(load_shards(packed))
    assert "train.npz: its SHA-256 differs from the one in index.json; trying again" in caplog.text
    kept = data.train.store.folder / "train.npz"
    kept.write_bytes(b"what an earlier version kept")
    assert all_bytes(load_shards(url=site.url, cache_dir=tmp_path / "cache")) == all_bytes(load_shards(packed))
    kept.unlink()
    site.faults["train.npz"] = ["changed"] * 4
    with pytest.raises(OSError, match=r"train\.npz cannot be fetched: its SHA-256 differs"):
        load_shards(url=site.url, cache_dir=tmp_path / "cache")
    assert not kept.exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("short", r"ended after 1000 of \d+ bytes"),
        ("changed", "differs from the one in index.json"),
        ("silent", "no byte for"),
        (503, "503 Service Unavailable"),
        (404, "404 Not Found"),
    ],
)
def test_what_stays_wrong_is_named(site, tmp_path, fault, reason):
    site.faults["train-00001.tar"] = [fault] * 4
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    data.train.store.silence = 0.2
    with pytest.raises(OSError, match=f"train-00001.tar cannot be fetched: .*{reason}"):
        all_bytes(data)
    assert site.asked.count("train-00001.tar") == (1 if fault == 404 else 4)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match=r"http://127.0.0.1:9/index.json cannot be fetched: .*refused"):
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


def test_what_a_killed_process_left_of_a_copy_goes(site, tmp_path):
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    left = data.train.store.folder / ".train-00001.tar.4711.tmp"
    left.write_bytes(b"half")
    all_bytes(data)
    assert not left.exists()


def test_as_much_is_worth_fetching_ahead_as_there_is_room_for(packed, tmp_path):
    def ahead(limit):
        return WebStore("http://x", tmp_path, limit=limit).ahead(10)

    assert ahead(None) == SHARDS_MIXED
    assert [ahead(10 * shards) for shards in (1, 16, 17, 20, 32, 99)] == [0, 0, 1, 4, 16, 16]
    assert load_shards(packed).train.ahead(torch.arange(3)) is None
