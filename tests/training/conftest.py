import functools

import pytest
import torch
from lightning_fabric import Fabric

import shortback as sb
from shortback.data import ArrayImages, BatchLoader
from shortback.losses import ShortcutLoss
from shortback.schedules import Linear
from shortback.training import Plan, Trainer, WarmupCosine, build_optimizer, choose_execution


def _images(count, *, seed):
    """Images whose class can be learned: as many bright columns as its number."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 60, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, :, :, 1 : 1 + 3 * label] += 150
    return ArrayImages(images, labels)


def build_trainer(
    model, folder, *, branches=True, at="stages", schedule=None, loggers=(), lr=0.05, fabric=None, loss=None, **plan
):
    """A trainer of a small network with branches, everything seeded."""
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    net = sb.attach(model, at=at, sample=torch.zeros(2, 1, 12, 12)) if branches else model
    loader = functools.partial(
        BatchLoader,
        transform=None,
        batch_size=16,
        mean=[0.3],
        std=[0.3],
        seed=3,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    train = loader(_images(64, seed=0), shuffle=True, drop_last=True)
    plan = Plan(**{"epochs": 3, "log_every": 2, **plan})
    return Trainer(
        net,
        train=train,
        validation=loader(_images(40, seed=1), shuffle=False, drop_last=False),
        loss=loss or ShortcutLoss(),
        schedule=schedule or Linear(),
        optimizer=build_optimizer(net, lr=lr),
        learning_rate=WarmupCosine(peak=lr, total_steps=plan.epochs * len(train), warmup_steps=2),
        plan=plan,
        execution=choose_execution(device="cpu", precision="fp32", compile="off"),
        fabric=fabric,
        folder=folder,
        loggers=loggers,
    )


@pytest.fixture
def make_trainer(make_network, tmp_path):
    def make(*, folder=tmp_path / "run", network=None, **settings):
        return build_trainer(network or make_network(), folder, **settings)

    return make


class Rows:
    """A logger that keeps its rows, and can act after a step."""

    def __init__(self, after_step=lambda step: None):
        self.rows, self.after_step = [], after_step

    def start(self, *, step, total_steps):
        self.started = (step, total_steps)

    def log(self, row):
        self.rows.append(row)

    def advance(self, step):
        self.after_step(step)

    def close(self):
        self.closed = True


@pytest.fixture
def rows():
    return Rows
