import pytest
import torch

import shortback as sb
from shortback.runs.branches import load_branches, save_branches


def network():
    torch.manual_seed(1)
    return sb.create_model("resnet20", num_steps=2, width=0.25)


def test_they_come_back_as_they_were(tmp_path):
    x = torch.randn(3, 3, 32, 32)
    net = sb.attach(network(), at=["layer1", "layer2.0"], sample=x)
    save_branches(net, tmp_path / "branches.safetensors")
    again = load_branches(network(), tmp_path / "branches.safetensors", batch_shape=(2, 3, 32, 32))
    assert again.places == ("layer1", "layer2.0")
    first, second = (n.train()(x) for n in (net, again))
    assert torch.equal(first.logits, second.logits)
    assert all(torch.equal(first.branches[place], second.branches[place]) for place in again.places)


def test_what_is_wrong_is_said(tmp_path):
    file = tmp_path / "branches.safetensors"
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match="no branches can be read from it"):
        load_branches(network(), file, batch_shape=(2, 3, 32, 32))
    save_branches(sb.attach(network(), at=["layer1"], sample=torch.randn(2, 3, 32, 32)), file)
    wider = sb.create_model("resnet20", num_steps=2, width=0.5)
    with pytest.raises(ValueError, match="the branches do not fit this network"):
        load_branches(wider, file, batch_shape=(2, 3, 32, 32))
