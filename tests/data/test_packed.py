"""Strings in two arrays are those that went in, and are not copied by who reads them."""

import multiprocessing
import os

import pytest

from shortback.data.packed import PackedStrings

STRINGS = ["train/a/1.png", "", "é/ü.png", os.fsdecode(b"\xff\xfe.jpg"), "z" * 300]


def test_they_come_out_as_they_went_in():
    packed = PackedStrings.of(STRINGS)
    assert list(packed) == STRINGS
    assert (len(packed), packed[-1], packed[2]) == (5, STRINGS[-1], STRINGS[2])
    assert list(packed[1:4]) == STRINGS[1:4]
    assert list(packed[::-2]) == STRINGS[::-2]
    assert list(packed[4:2]) == []
    assert list(packed[3:][1:]) == STRINGS[4:]
    assert list(packed[1:3] + packed[3:] + packed[:0]) == STRINGS[1:]
    assert list(PackedStrings.of([])) == []
    for outside in (5, -6):
        with pytest.raises(IndexError):
            packed[outside]


def _private_growth(strings, queue):
    before = _private()
    for string in strings:
        assert string
    queue.put(_private() - before)


def _private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_a_worker_that_reads_them_all_copies_no_page():
    """Which it does of a list: in KiB."""
    strings = [f"train/n{number % 1000:08}/n{number:08}.JPEG" for number in range(300_000)]
    context, growth = multiprocessing.get_context("fork"), {}
    for kind, each in (("list", strings), ("packed", PackedStrings.of(strings))):
        queue = context.SimpleQueue()
        worker = context.Process(target=_private_growth, args=(each, queue))
        worker.start()
        growth[kind] = queue.get()
        worker.join()
    assert growth["packed"] < 3_000
    assert growth["list"] > 5 * growth["packed"]
