import torch

import shortback as sb
from shortback.inspection.trunk import trunk_of


def test_a_network_is_seen_without_its_branches():
    model = sb.create_model("vgg11", width=0.125, num_steps=1)
    assert trunk_of(model) is model
    net = sb.attach(model, at="stages", sample=torch.zeros(2, 3, 16, 16))
    assert trunk_of(net) is model
