import os
import pickle

import pytest
import torch

from shortback.data import BatchLoader
from shortback.data.shards import images as shard_images
from shortback.data.shards import load_shards
from shortback.errors import UserError


def test_more_shards_than_may_be_open(packed, monkeypatch):
    monkeypatch.setattr(shard_images, "_OPEN", 2)
    split = load_shards(packed).train
    expected = [split.image(i) for i in range(len(split))]
    assert all(torch.equal(split.image(i), expected[i]) for i in torch.randperm(len(split)).tolist())
    assert len(split._opened) == 2
    again = pickle.loads(pickle.dumps(split))
    assert not again._opened
    assert torch.equal(again.image(7), expected[7])


def test_copies_that_were_removed_take_no_space(site, packed, tmp_path, monkeypatch):
    """What is open counts too: a removed file keeps its space until it is closed."""
    for module in ("images", "source", "store"):
        monkeypatch.setattr(f"shortback.data.shards.{module}.SHARDS_MIXED", 2)
    expected = load_shards(packed).train
    limit = 3 * max(shard.size for shard in expected.split.shards)
    split = load_shards(url=site.url, cache_dir=tmp_path / "cache", cache_gb=limit / 1e9).train
    assert len(split.split.shards) > 6
    for index in [*range(len(split)), *torch.randperm(len(split)).tolist()]:
        assert torch.equal(split.image(index), expected.image(index))
        named = sum(path.stat().st_size for path in split.store.folder.glob("*.tar"))
        held = [os.fstat(descriptor) for descriptor in split._opened.values()]
        assert named + sum(stat.st_size for stat in held if not stat.st_nlink) <= limit
        assert len(held) <= 2


def test_damage_within_a_shard_is_named(packed):
    split = load_shards(packed).train
    start = int(split.places.offsets[3])
    path = packed / split.split.shards[int(split.places.shards[3])].name
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"00000003\.\w+ in the shard {path.name} cannot be read"):
        split.image(3)
    path.write_bytes(content[: start + 10])
    with pytest.raises(UserError, match="the shard ends before it"):
        split.image(3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_goes_on_in_the_middle_with_any_number_of_processes(packed, num_workers):
    """What two processes get of each global batch is what one gets, from any batch on."""

    def loader(rank=0, world_size=1, workers=num_workers):
        data = load_shards(packed)
        settings = {"mean": data.mean, "std": data.std, "seed": 3, "shuffle": True, "drop_last": True}
        return BatchLoader(
            data.train,
            transform=lambda image: image[:, :64, :64],
            batch_size=8,
            num_workers=workers,
            rank=rank,
            world_size=world_size,
            **settings,
        )

    whole = list(loader(workers=0).epoch(1))
    assert len(whole) == 5
    halves = [list(loader(rank=rank, world_size=2).epoch(1, start=2)) for rank in (0, 1)]
    for (x, y), *parts in zip(whole[2:], *halves, strict=True):
        assert torch.equal(torch.cat([part[0] for part in parts]), x)
        assert torch.equal(torch.cat([part[1] for part in parts]), y)


def test_shards_under_each_others_names_are_refused(packed):
    """Files of equal size, which an index by sizes alone does not tell apart."""
    split = load_shards(packed).train
    first, second = (packed / shard.name for shard in split.split.shards[:2])
    mine, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(mine)
    with pytest.raises(UserError, match=rf"{first.name} does not hold the images that index.json has for it"):
        load_shards(packed).train.image(0) if len(mine) == len(other) else split._open(0)
