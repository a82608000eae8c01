"""A SpikingJelly VGG, trained with branches and stripped: python examples/with_spikingjelly.py"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data import load_data, normalize
from shortback.training import evaluate, fit


class VGG(nn.Module):
    def __init__(self, num_steps=4):
        super().__init__()
        self.num_steps = num_steps
        layers, width = [], 1
        for out, pool in ((16, False), (16, True), (32, False), (32, True), (64, False), (64, True)):
            layers += [layer.Conv2d(width, out, 3, padding=1, bias=False), layer.BatchNorm2d(out)]
            layers += [neuron.LIFNode(tau=1.25, surrogate_function=surrogate.ATan(), detach_reset=True)]
            layers += [layer.MaxPool2d(2)] if pool else []
            width = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(layer.AdaptiveAvgPool2d(1), layer.Flatten(), layer.Linear(64, 10))
        functional.set_step_mode(self, "m")

    def forward(self, x):  # [N, C, H, W] -> [T, N, K]
        return self.head(self.features(x.expand(self.num_steps, *x.shape)))


data = load_data("bundled")  # a part of Fashion-MNIST that ships with the package


def loader(split, count, *, shuffle=False):
    images = normalize(split.images[:count], mean=data.mean, std=data.std)
    return DataLoader(TensorDataset(images, split.labels[:count]), batch_size=50, shuffle=shuffle)


train, test = loader(data.train, 1200, shuffle=True), loader(data.test, 300)

torch.manual_seed(0)
model = VGG()
# A branch after every LIFNode but the last; the output is averaged over time.
net = sb.attach(model, sample=torch.rand(2, 1, 28, 28), reduce="mean")
print("branches at", ", ".join(net.places))
fit(net, train, epochs=2, lr=0.1, folder="runs/spikingjelly")
model = sb.strip(net)
functional.reset_net(model)  # SpikingJelly's own functions work on it as before
print(f"test accuracy {evaluate(model, test).accuracy:.1%}")
