"""An snnTorch network, trained with branches and stripped: python examples/with_snntorch.py"""

import snntorch
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data import load_data, normalize
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


data = load_data("bundled")  # a part of Fashion-MNIST that ships with the package


def loader(split, count, *, shuffle=False):
    images = normalize(split.images[:count], mean=data.mean, std=data.std)
    return DataLoader(TensorDataset(images, split.labels[:count]), batch_size=50, shuffle=shuffle)


train, test = loader(data.train, 1200, shuffle=True), loader(data.test, 300)

torch.manual_seed(0)
net = sb.attach(Net(), sample=torch.rand(2, 1, 28, 28), reduce="mean")
print("branches at", ", ".join(net.places))  # after every Leaky but the last
fit(net, train, epochs=1, lr=0.05, folder="runs/snntorch")
model = sb.strip(net)
print(f"test accuracy {evaluate(model, test).accuracy:.1%}")
