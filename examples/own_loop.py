"""A hand-written LIF in a training loop of your own: python examples/own_loop.py

The four numbered lines add the branches; everything else is ordinary PyTorch.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data import load_data, normalize


class Spike(torch.autograd.Function):
    """Fires at 0 and above; the surrogate is a triangle of half-width 1."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (1 - u.abs()).clamp_min(0)


class LIF(nn.Module):
    """`[T, N, ...] -> [T, N, ...]`: decay 0.5, threshold 1, hard reset."""

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            u = 0.5 * v + current
            spike = Spike.apply(u - 1)
            v = u * (1 - spike)
            spikes.append(spike)
        return torch.stack(spikes)


class Layer(nn.Module):
    """Convolution and norm on all steps at once, `[T, N, ...]`, then the neuron."""

    def __init__(self, width, out, stride):
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.lif = LIF()

    def forward(self, x):
        return self.lif(self.norm(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]))


class Net(nn.Module):
    def __init__(self, num_steps=2, num_classes=10):
        super().__init__()
        self.num_steps = num_steps
        widths = [(1, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
        self.layers = nn.Sequential(*[Layer(*width) for width in widths])
        self.classify = nn.Linear(64, num_classes)

    def forward(self, x):  # [N, C, H, W] -> [N, K]
        spikes = self.layers(x.expand(self.num_steps, *x.shape))
        return self.classify(spikes.mean(dim=(0, 3, 4)))


device = "cuda" if torch.cuda.is_available() else "cpu"
data = load_data("bundled")
images = normalize(data.train.images[:1200], mean=data.mean, std=data.std)
loader = DataLoader(TensorDataset(images, data.train.labels[:1200]), batch_size=50, shuffle=True)

torch.manual_seed(0)
net = Net().to(device)
net = sb.attach(net, sample=images[:2].to(device))  # 1: a branch after every block but the last
schedule = sb.schedules.Linear(start=0.25, end=0.0)  # 2: equation 10
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)  # includes the heads of the branches
epochs = 2
for epoch in range(epochs):
    net.train()
    for index, (x, y) in enumerate(loader):
        progress = (epoch + index / len(loader)) / epochs
        outputs = net(x.to(device))
        terms = sb.shortcut_loss(outputs, y.to(device), coefficient=schedule(progress))  # 3: instead of F.cross_entropy
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}  main {terms.main:.3f}  total {terms.total:.3f}")
net = sb.strip(net)  # 4: the object that was passed to `attach`
torch.save(net.state_dict(), "model.pt")  # only the keys of `Net`
