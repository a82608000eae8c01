import torch

from shortback.data.images import ArrayImages, Subset
from shortback.data.order import SHARDS_MIXED, random_order


def draw(images, seed=0):
    return random_order(images, torch.Generator().manual_seed(seed))


def shards(number, each):
    images = ArrayImages(torch.zeros(number * each, 1, 1, 1, dtype=torch.uint8), torch.zeros(number * each).long())
    images.shards = torch.arange(number).repeat_interleave(each)
    return images


def test_without_shards_it_is_any_order():
    images = ArrayImages(torch.zeros(50, 1, 1, 1, dtype=torch.uint8), torch.zeros(50).long())
    assert torch.equal(draw(images), torch.randperm(50, generator=torch.Generator().manual_seed(0)))


def test_few_shards_are_read_side_by_side():
    images = shards(50, 10)
    order = draw(images)
    assert torch.equal(order.sort().values, torch.arange(500))
    groups = [set(images.shards[part].tolist()) for part in order.split(SHARDS_MIXED * 10)]
    assert [len(group) for group in groups] == [16, 16, 16, 2]
    assert not set.intersection(*groups[:2])
    first = images.shards[order[:160]]
    assert len(set(first[:40].tolist())) > 10  # and among them in any order
    assert not torch.equal(order, draw(images, seed=1))
    assert {*images.shards[draw(images, seed=1)[:160]].tolist()} != groups[0]


def test_a_part_of_shards_knows_them_too():
    images = shards(40, 10)
    part = Subset(images, torch.arange(0, 400, 3))
    order = draw(part)
    assert torch.equal(order.sort().values, torch.arange(len(part)))
    assert len(set(images.shards[part.indices[order[:40]]].tolist())) <= SHARDS_MIXED
