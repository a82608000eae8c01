"""A Norse network, trained with branches and stripped: python examples/with_norse.py"""

import norse.torch as norse
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data import load_data, normalize
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


data = load_data("bundled")  # a part of Fashion-MNIST that ships with the package


def loader(split, count, *, shuffle=False):
    images = normalize(split.images[:count], mean=data.mean, std=data.std)
    return DataLoader(TensorDataset(images, split.labels[:count]), batch_size=50, shuffle=shuffle)


train, test = loader(data.train, 1200, shuffle=True), loader(data.test, 300)

torch.manual_seed(0)
net = sb.attach(Net(), sample=torch.rand(2, 1, 28, 28), reduce="last")
print("branches at", ", ".join(net.places))
fit(net, train, epochs=1, lr=0.1, folder="runs/norse", clip_norm=1.0)
# Evaluated while attached, because `reduce` belongs to `net`: the stripped network returns all steps again.
print(f"test accuracy {evaluate(net, test).accuracy:.1%}")
model = sb.strip(net)
