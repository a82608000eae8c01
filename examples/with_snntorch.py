"""A network of snnTorch with branches, trained and stripped: python examples/with_snntorch.py"""

import snntorch
import torch
from torch import nn

import shortback as sb
from shortback.data import BatchLoader, limit_images, load_data
from shortback.training import evaluate, fit


class Net(nn.Module):
    def __init__(self, num_steps=4):
        super().__init__()
        self.num_steps = num_steps
        neuron = {"beta": 0.9, "spike_grad": snntorch.surrogate.atan(), "init_hidden": True}
        self.step = nn.Sequential(
            nn.Conv2d(1, 16, 3),
            nn.BatchNorm2d(16),
            snntorch.Leaky(**neuron),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.BatchNorm2d(32),
            snntorch.Leaky(**neuron),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3),
            nn.BatchNorm2d(32),
            snntorch.Leaky(**neuron),
            nn.Flatten(),
            nn.Linear(288, 10),
        )

    def forward(self, x):
        return torch.stack([self.step(x) for _ in range(self.num_steps)])  # [T, N, K]


data = load_data("bundled")
settings = {"transform": None, "batch_size": 50, "mean": data.mean, "std": data.std, "seed": 0, "drop_last": False}
train = BatchLoader(limit_images(data.train, count=1200, seed=0), shuffle=True, **settings)
test = BatchLoader(limit_images(data.test, count=300, seed=0), shuffle=False, **settings)

torch.manual_seed(0)
net = sb.attach(Net(), sample=torch.rand(2, 1, 28, 28), reduce="mean")  # places: step.2 and step.6
fit(net, train, validation=test, epochs=1, lr=0.05, folder="runs/snntorch")
model = sb.strip(net)
print(f"test accuracy {evaluate(model, test.epoch(0)).accuracy:.1%}")
