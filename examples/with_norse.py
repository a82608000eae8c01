"""A network of Norse with branches, trained and stripped: python examples/with_norse.py"""

import norse.torch as norse
import torch
from torch import nn

import shortback as sb
from shortback.data import BatchLoader, limit_images, load_data
from shortback.training import evaluate, fit


class Net(nn.Module):
    def __init__(self, num_steps=6):
        super().__init__()
        self.num_steps = num_steps
        lif = norse.LIFParameters(v_th=torch.tensor(0.2), alpha=torch.tensor(10.0))
        self.sequence = norse.SequentialState(
            norse.Lift(nn.Sequential(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16))),
            norse.LIF(p=lif),
            norse.Lift(nn.Sequential(nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32))),
            norse.LIF(p=lif),
            nn.Flatten(2),
            nn.Linear(1152, 10),
            norse.LI(),
        )

    def forward(self, x):
        membranes, _ = self.sequence(x.expand(self.num_steps, *x.shape))
        return membranes  # [T, N, K]


data = load_data("bundled")
settings = {"transform": None, "batch_size": 50, "mean": data.mean, "std": data.std, "seed": 0, "drop_last": False}
train = BatchLoader(limit_images(data.train, count=1200, seed=0), shuffle=True, **settings)
test = BatchLoader(limit_images(data.test, count=300, seed=0), shuffle=False, **settings)

torch.manual_seed(0)
net = sb.attach(Net(), sample=torch.rand(2, 1, 28, 28), reduce="last")
fit(net, train, epochs=1, lr=0.1, folder="runs/norse", clip_norm=1.0)
test_accuracy = evaluate(
    net, test.epoch(0)
).accuracy  # while attached: `reduce` is the network's own business afterwards
model = sb.strip(net)
print(f"test accuracy {test_accuracy:.1%}")
