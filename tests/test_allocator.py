"""Freed memory is kept, and given back where more is asked for; in processes of their own, as the setting lasts."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import resource
import torch
from shortback.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
mapped = faults()
assert keep_freed_memory()
faults()
print(mapped, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_a_tensor_is_not_mapped_anew():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    mapped, kept = map(int, result.stdout.split())
    assert mapped > 10_000
    assert kept < mapped / 20


GROWING = """
import re
import torch
from pathlib import Path
from shortback.allocator import keep_freed_memory, make_room

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

cpu = torch.device("cpu")
assert keep_freed_memory()
make_room(2**20, cpu)
pieces = [torch.ones(2**18) for _ in range(128)]  # MiB, of which every other is freed
del pieces[::2]
before = resident()
for num_bytes in (2**20, 2**19):
    make_room(num_bytes, cpu)
make_room(2**22, torch.device("meta"))
same = resident()
make_room(2**20 + 1, cpu)
print(before - same, before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc gives it back")
def test_gaps_are_given_back_where_more_is_asked_for_than_before():
    result = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, check=True)
    given_back_before, given_back = map(int, result.stdout.split())
    assert given_back_before == 0
    assert given_back == pytest.approx(64, abs=4)
