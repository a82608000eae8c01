"""Shards fetched before they are read: which, when, by whom, and that nothing else changes."""

import os
import threading
import time

import pytest
import torch

from shortback.data.images import Subset
from shortback.data.loader import BatchLoader
from shortback.data.shards import load_shards
from shortback.data.shards.ahead import FetchAhead
from shortback.data.shards.index import ShardFile
from shortback.data.transforms import Augmentation, TrainTransform

SHARDS = [ShardFile(str(number), 1, "") for number in range(6)]
#          position 0  1  2  3  4  5  6  7  8
NUMBERS = torch.tensor([3, 3, 0, 3, 0, 5, 1, 5, 4])


class Shelf:
    """A store that notes what it is asked for."""

    def __init__(self, missing=()):
        self.opened, self.missing = [], missing

    def open(self, shard):
        self.opened.append(int(shard.name))
        if shard.name in self.missing:
            raise OSError(f"{shard.name} cannot be had")
        return os.open(os.devnull, os.O_RDONLY)

    def after(self, ahead, position, **which):
        ahead.reach(position, **which)
        if ahead._thread is not None:
            ahead._thread.join(10)
        return self.opened


def test_the_next_few_are_fetched_in_the_order_of_their_first_image():
    shelf = Shelf()
    ahead = FetchAhead(shelf, SHARDS, NUMBERS, depth=2)
    assert shelf.after(ahead, 0) == [0, 5]
    assert shelf.after(ahead, 1) == [0, 5]  # nothing new has begun
    assert shelf.after(ahead, 4) == [0, 5, 1]
    assert shelf.after(ahead, 8) == [0, 5, 1]  # shard 4 was begun before it could be fetched


def test_an_epoch_that_goes_on_in_its_middle_fetches_nothing_of_before():
    shelf = Shelf()
    assert shelf.after(FetchAhead(shelf, SHARDS, NUMBERS, depth=16), 5) == [1, 4]


def test_processes_begin_at_different_ones():
    def firsts(parts):
        for part in range(parts):
            shelf = Shelf()
            yield shelf.after(FetchAhead(shelf, SHARDS, NUMBERS, depth=4), 0, part=part, parts=parts)

    assert [*firsts(2)] == [[0, 5, 1, 4], [1, 4, 0, 5]]
    assert [order[0] for order in firsts(8)] == [0, 0, 5, 5, 1, 1, 4, 4]


def test_one_that_cannot_be_had_is_left_to_its_reader():
    shelf = Shelf(missing=["0"])
    assert shelf.after(FetchAhead(shelf, SHARDS, NUMBERS, depth=2), 0) == [0, 5]


def test_reading_does_not_wait():
    gate = threading.Event()
    shelf = Shelf()
    opened, shelf.open = shelf.open, lambda shard: gate.wait(10) and opened(shard)
    ahead = FetchAhead(shelf, SHARDS, NUMBERS, depth=2)
    began = time.monotonic()
    ahead.reach(0)
    assert time.monotonic() - began < 5
    gate.set()
    ahead._thread.join(10)
    assert shelf.opened == [0, 5]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_and_the_shards_of_later_ones_are_there(site, packed, tmp_path, num_workers):
    data = load_shards(url=site.url, cache_dir=tmp_path / "cache")
    kept = torch.arange(len(data.train)).flip(0)[:32]  # as without validation images
    wanted = [data.train.split.shards[number].name for number in data.train.shards[kept].unique().tolist()]
    assert 4 < len(wanted) < len(data.train.split.shards)

    def batches(data):
        transform = TrainTransform(Augmentation(), image_size=32)
        settings = {"transform": transform, "batch_size": 2, "mean": data.mean, "std": data.std, "seed": 3}
        loader = BatchLoader(
            Subset(data.train, kept), shuffle=True, drop_last=True, num_workers=num_workers, **settings
        )
        return loader.epoch(0)

    from_web, from_folder = batches(data), batches(load_shards(packed))
    pairs = [(next(from_web), next(from_folder))]
    for _ in range(100):  # two images are read, or a few by workers: all others were fetched ahead
        if len(list(data.train.store.folder.glob("train-*.tar"))) == len(wanted):
            break
        threading.Event().wait(0.1)  # time.sleep is patched
    else:
        pytest.fail("shards were not fetched ahead")
    pairs += zip(from_web, from_folder, strict=True)
    assert all(torch.equal(x, other) and torch.equal(y, theirs) for (x, y), (other, theirs) in pairs)
    assert sorted(name for name in site.asked if name.endswith(".tar")) == wanted  # each once
