import pytest
import torch

import shortback as sb
from shortback.export.program import to_program
from tests.export.networks import foreign, images, network

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fold", [False, True])
@torch.no_grad()
def test_batches_of_any_size(fold):
    model = network("foreign")
    program = to_program(model, images(1), fold=fold).module()
    for count in (1, 2, 7):
        x = images(count)
        torch.testing.assert_close(program(x), model(x), rtol=0, atol=1e-5 if fold else 0)


@torch.no_grad()
def test_sequences():
    model, x = network("resnet20"), images(5, num_steps=3)
    torch.testing.assert_close(to_program(model, x).module()(x), model(x), rtol=0, atol=1e-5)


@torch.no_grad()
def test_streaming_is_the_sequence():
    model = network("foreign")
    program = to_program(model, images(1), streaming=True, fold=False).module()
    sequence, stream = images(3, num_steps=3), sb.stream(model)
    state = stream.initial_state(sequence[0])
    for frame in sequence:
        y, state = program(frame, state)
    assert torch.equal(y, model(sequence))


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="takes a frame"):
        to_program(network("resnet20"), images(num_steps=3), streaming=True)

    class Depends(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x):
            x = self.act(x)
            return x.flatten(1) if x.sum() > 1 else x.flatten(1) * 2

    with pytest.raises(ValueError, match=r"torch\.export cannot follow SpikingNetwork"):
        to_program(sb.spikify(Depends(), num_steps=2), images())


def test_the_network_is_left_as_it_was():
    model = foreign().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    to_program(model, images())
    assert model.training
    assert all(m.training for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
