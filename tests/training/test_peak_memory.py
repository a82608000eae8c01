import mmap
from pathlib import Path

import pytest
import torch

from shortback.training.peak_memory import forget_peak, peak_bytes

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux forgets the peak on request")
def test_the_peak_is_forgotten():
    size = 64 * 2**20
    with mmap.mmap(-1, size) as block:  # and not an allocator, which may have as much at hand
        block.write(b"1" * size)
    with_block = peak_bytes(CPU)
    forget_peak(CPU)
    assert 0 < peak_bytes(CPU) < with_block - 0.9 * size
