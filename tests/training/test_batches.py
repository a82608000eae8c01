import torch
from torch.utils.data import DataLoader, TensorDataset

from shortback.data import ArrayImages, BatchLoader
from shortback.training import Batches, SeededBatches


def test_the_order_is_that_of_the_seed_and_the_epoch():
    data = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20))
    batches = SeededBatches(DataLoader(data, batch_size=4, shuffle=True), seed=1)
    assert isinstance(batches, Batches)
    random = torch.get_rng_state()
    first = [y.tolist() for _, y in batches.epoch(0)]
    assert torch.equal(torch.get_rng_state(), random)
    torch.rand(5)
    assert [y.tolist() for _, y in batches.epoch(0)] == first
    assert [y.tolist() for _, y in batches.epoch(0, start=3)] == first[3:]
    assert [y.tolist() for _, y in batches.epoch(1)] != first
    assert sorted(label for batch in first for label in batch) == list(range(20))


def test_our_own_loader_is_taken_as_it_is():
    images = ArrayImages(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    loader = BatchLoader(
        images, transform=None, batch_size=4, mean=[0.5], std=[0.5], seed=0, shuffle=True, drop_last=True
    )
    assert isinstance(loader, Batches)
