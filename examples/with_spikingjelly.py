"""A VGG of SpikingJelly with branches, trained and stripped: python examples/with_spikingjelly.py"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import shortback as sb
from shortback.data import BatchLoader, limit_images, load_data
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

    def forward(self, x):  # [N, C, H, W] to [T, N, K]
        return self.head(self.features(x.expand(self.num_steps, *x.shape)))


data = load_data("bundled")
settings = {"transform": None, "batch_size": 50, "mean": data.mean, "std": data.std, "seed": 0, "drop_last": False}
train = BatchLoader(limit_images(data.train, count=1200, seed=0), shuffle=True, **settings)
test = BatchLoader(limit_images(data.test, count=300, seed=0), shuffle=False, **settings)

torch.manual_seed(0)
model = VGG()
net = sb.attach(model, sample=torch.rand(2, 1, 28, 28), reduce="mean")  # after every LIFNode but the last
fit(net, train, epochs=2, lr=0.1, folder="runs/spikingjelly")
model = sb.strip(net)
functional.reset_net(model)  # its own functions work on it as before
print(f"test accuracy {evaluate(model, test.epoch(0)).accuracy:.1%}")
