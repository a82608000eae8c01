"""Two processes on one machine have the loss curve of one with the same global batch."""

import importlib
import multiprocessing
import os

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

import shortback as sb
from shortback.schedules import Linear
from tests.networks.research import NormedMembraneNeuron
from tests.training.conftest import Rows, build_trainer

pytestmark = pytest.mark.slow


class InFloat64:
    """The batches of a loader in float64, where no sum in another order flips a spike."""

    def __init__(self, loader):
        self.loader, self.batch_size = loader, loader.batch_size

    def __len__(self):
        return len(self.loader)

    def epoch(self, epoch, *, start=0):
        return ((x.double(), y) for x, y in self.loader.epoch(epoch, start=start))


class Mixed(nn.Module):
    """Norms of three kinds: SpikingJelly's over steps, one in a neuron that is called once a step, one of features."""

    def __init__(self):
        super().__init__()
        layer, neuron = (
            importlib.import_module(f"spikingjelly.activation_based.{name}") for name in ("layer", "neuron")
        )
        self.conv, self.norm = layer.Conv2d(1, 4, 3, step_mode="m"), layer.BatchNorm2d(4, step_mode="m")
        self.lif = neuron.LIFNode(step_mode="m", v_threshold=0.3)
        self.conv2, self.normed = nn.Conv2d(4, 4, 3), NormedMembraneNeuron(4)
        self.hidden, self.norm1d, self.fc = nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x):
        spikes = self.lif(self.norm(self.conv(x.expand(2, *x.shape))))
        currents = self.conv2(spikes.flatten(0, 1)).unflatten(0, (2, -1))
        averages = self.normed(currents.transpose(0, 1)).mean((1, 3, 4))
        return self.fc(self.norm1d(self.hidden(averages)).relu())


NETWORKS = {
    "ours": (lambda: sb.create_model("resnet20", num_steps=2, in_channels=1, width=0.25), "stages"),
    "mixed": (Mixed, ["lif", "normed"]),
}


def _train(folder, rank, world_size, name):
    """Train in one of the processes; halfway the branches are dropped."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if world_size > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29871",
        }
    strategy = "ddp" if world_size > 1 else "auto"
    fabric = Fabric(accelerator="cpu", devices=world_size, strategy=strategy, precision="64-true")
    fabric.launch()
    torch.manual_seed(0)
    make, at = NETWORKS[name]
    log = Rows()
    trainer = build_trainer(make(), folder, at=at, fabric=fabric, loggers=[log], log_every=1, schedule=Linear(over=0.5))
    trainer.train, trainer.validation = InFloat64(trainer.train), InFloat64(trainer.validation)
    trainer.fit()
    if rank == 0:
        curve = [[row["loss"], row["accuracy"]] for row in log.rows]
        torch.save(torch.tensor(curve, dtype=torch.float64), folder / "curve.pt")


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_and_one(tmp_path, name):
    if name == "mixed":
        pytest.importorskip("spikingjelly")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shortback.runs.train", "torch._dynamo"])
    curves = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        processes = [
            context.Process(target=_train, args=(folder, rank, world_size, name)) for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0] * world_size
        curves.append(torch.load(folder / "curve.pt"))
    assert curves[0].shape == (15, 2)  # 12 steps and 3 epochs
    torch.testing.assert_close(curves[1], curves[0], rtol=1e-9, atol=1e-9)
