"""A timm network, made spiking and fine-tuned from its weights: python examples/with_timm.py [WEIGHTS]

WEIGHTS is a state dict of the non-spiking network. Without one, the network is trained here first, as a stand-in for
weights that you already have; with internet access, `timm.create_model(..., pretrained=True)` downloads some.
"""

import sys

import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data import load_data, normalize
from shortback.training import evaluate, fit

data = load_data("bundled")  # a part of Fashion-MNIST that ships with the package


def loader(split, count, *, shuffle=False):
    images = normalize(split.images[:count], mean=data.mean, std=data.std)
    return DataLoader(TensorDataset(images, split.labels[:count]), batch_size=50, shuffle=shuffle)


train, test = loader(data.train, 1200, shuffle=True), loader(data.test, 300)

torch.manual_seed(0)
ann = timm.create_model("resnet10t", num_classes=10, in_chans=1)
if sys.argv[1:]:
    ann.load_state_dict(torch.load(sys.argv[1], weights_only=True))
else:
    fit(ann, train, epochs=2, lr=0.05, folder="runs/timm-ann")
print(f"without spikes: test accuracy {evaluate(ann, test).accuracy:.1%}")

# Every ReLU becomes a neuron; the weights stay.
model = sb.spikify(ann, num_steps=2)
print(f"spiking, as it is: test accuracy {evaluate(model, test).accuracy:.1%}")

net = sb.attach(model, at="stages", sample=torch.rand(2, 1, 28, 28))
fit(net, train, epochs=2, lr=0.02, folder="runs/timm")
model = sb.strip(net)
print(f"fine-tuned: test accuracy {evaluate(model, test).accuracy:.1%}")
