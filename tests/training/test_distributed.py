"""Two processes on one machine have the loss curve of one with the same global batch."""

import importlib
import multiprocessing
import os

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

import shortback as sb
from shortback.schedules import Adaptive, Linear
from shortback.training import choose_execution, evaluate, fit
from shortback.training.checkpoint import read_checkpoint
from shortback.training.shares import share_of
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


def _launched(rank, world_size):
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
    return fabric


def _train(folder, rank, world_size, name):
    """Train in one of the processes; halfway the branches are dropped."""
    fabric = _launched(rank, world_size)
    make, at = NETWORKS[name]
    log = Rows()
    trainer = build_trainer(make(), folder, at=at, fabric=fabric, loggers=[log], log_every=1, schedule=Linear(over=0.5))
    trainer.train, trainer.validation = InFloat64(trainer.train), InFloat64(trainer.validation)
    trainer.fit()
    if rank == 0:
        curve = [[row["loss"], row["accuracy"]] for row in log.rows]
        torch.save(torch.tensor(curve, dtype=torch.float64), folder / "curve.pt")


def _look(folder, rank, world_size):
    """Look at every step, adapt the coefficient to what is seen, and draw random numbers, each process its own."""
    fabric = _launched(rank, world_size)
    model = sb.create_model("resnet20", num_steps=2, in_channels=1, width=0.25)
    net = sb.attach(model, at="stages", sample=torch.zeros(2, 1, 12, 12))
    torch.manual_seed(rank)
    x = torch.rand(21, 1, 12, 12) * (1 - rank)  # of one process nothing fires
    loader = torch.utils.data.DataLoader([*zip(x, torch.arange(21) % 4, strict=True)], batch_size=4, shuffle=True)
    log = Rows()
    settings = {"watch_every": 1, "log_every": 1, "validation": loader, "loggers": [log], "fabric": fabric}
    settings["execution"] = choose_execution(compile="off")
    fit(net, loader, epochs=2, folder=folder, schedule=Adaptive(start=0.8), **settings)
    states = read_checkpoint(folder / "checkpoints" / "last.pt")["random"]
    assert len(states) == world_size
    assert torch.equal(states[rank]["cpu"], torch.get_rng_state())
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])
    assert evaluate(net, share_of(loader, rank=rank, world_size=2, even=False, seed=0), fabric=fabric).num_images == 21
    coefficients = torch.zeros(world_size)
    coefficients[rank] = sum(p.detach().double().sum() for p in net.parameters())
    total = fabric.all_reduce(coefficients, reduce_op="sum")
    assert total[0] == total[1]  # the same weights, so the same coefficients
    if rank == 0:
        assert sum(row["kind"] == "health" for row in log.rows) == 6


def _run(target, world_size, *args):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shortback.runs.train", "torch._dynamo"])
    processes = [
        context.Process(target=target, args=(args[0], rank, world_size, *args[1:])) for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * world_size


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_and_one(tmp_path, name):
    if name == "mixed":
        pytest.importorskip("spikingjelly")
    curves = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        _run(_train, world_size, folder, name)
        curves.append(torch.load(folder / "curve.pt"))
    assert curves[0].shape == (15, 2)  # 12 steps and 3 epochs
    torch.testing.assert_close(curves[1], curves[0], rtol=1e-9, atol=1e-9)


def test_a_look_at_one_process_is_waited_for_by_none(tmp_path):
    _run(_look, 2, tmp_path)
