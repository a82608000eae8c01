"""A network of timm, made spiking and fine-tuned from its weights: python examples/with_timm.py [WEIGHTS]

WEIGHTS is a state dict of the network without spikes. Without one it is trained here first, as a stand-in for weights
that you have; `timm.create_model(..., pretrained=True)` downloads some where there is a network.
"""

import sys

import timm
import torch

import shortback as sb
from shortback.data import BatchLoader, limit_images, load_data
from shortback.training import evaluate, fit

data = load_data("bundled")
settings = {"transform": None, "batch_size": 50, "mean": data.mean, "std": data.std, "seed": 0, "drop_last": False}
train = BatchLoader(limit_images(data.train, count=1200, seed=0), shuffle=True, **settings)
test = BatchLoader(limit_images(data.test, count=300, seed=0), shuffle=False, **settings)

torch.manual_seed(0)
ann = timm.create_model("resnet10t", num_classes=10, in_chans=1)
if sys.argv[1:]:
    ann.load_state_dict(torch.load(sys.argv[1], weights_only=True))
else:
    fit(ann, train, epochs=2, lr=0.05, folder="runs/timm-ann")
print(f"without spikes: test accuracy {evaluate(ann, test.epoch(0)).accuracy:.1%}")

# Every ReLU becomes a neuron; weights and keys stay. A surrogate as wide as the threshold, and two steps.
model = sb.spikify(ann, num_steps=2)
print(f"spiking, as it is: test accuracy {evaluate(model, test.epoch(0)).accuracy:.1%}")

net = sb.attach(model, at="stages", sample=torch.rand(2, 1, 28, 28))
fit(net, train, epochs=2, lr=0.02, folder="runs/timm")
model = sb.strip(net)
print(f"fine-tuned: test accuracy {evaluate(model, test.epoch(0)).accuracy:.1%}")
