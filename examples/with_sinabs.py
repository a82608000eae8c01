"""A sinabs network, trained with branches and stripped: python examples/with_sinabs.py"""

import sinabs.from_torch
import torch
from torch import nn

import shortback as sb
from shortback.data import BatchLoader, limit_images, load_data
from shortback.training import evaluate, fit

num_steps = 5
ann = nn.Sequential(
    nn.Conv2d(1, 16, 3, 2),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, 2),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(1152, 10),
)
data = load_data("bundled")
settings = {"transform": None, "batch_size": 50, "mean": data.mean, "std": data.std, "seed": 0, "drop_last": False}
train = BatchLoader(limit_images(data.train, count=1200, seed=0), shuffle=True, **settings)
test = BatchLoader(limit_images(data.test, count=300, seed=0), shuffle=False, **settings)


class OverTime:
    """The batches of a loader, with every image repeated once per step: `[N*T, C, H, W]`."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def epoch(self, epoch, *, start=0):
        for x, y in self.loader.epoch(epoch, start=start):
            yield x.repeat_interleave(num_steps, 0), y


torch.manual_seed(0)
model = sinabs.from_torch.from_model(ann, num_timesteps=num_steps)
x = torch.rand(2, 1, 28, 28).repeat_interleave(num_steps, 0)
net = sb.attach(model, at=["spiking_model.2", "spiking_model.5"], sample=x, num_steps=num_steps, reduce="mean")
fit(net, OverTime(train), epochs=1, lr=0.02, folder="runs/sinabs", clip_norm=1.0)
print(f"test accuracy {evaluate(net, OverTime(test).epoch(0)).accuracy:.1%}")
model = sb.strip(net)
