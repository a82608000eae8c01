import pytest
import torch
from torch import nn

import shortback as sb
from shortback.neurons import LIF
from shortback.training import choose_execution
from shortback.training.execution import choice_in_words


def memories(net):
    return {module.memory for module in net.modules() if isinstance(module, LIF)}


def test_the_memory_of_a_network_stays_if_none_is_chosen():
    model = sb.create_model("vgg11", width=0.125)
    model.memory = "small"
    choose_execution(device="cpu", precision="fp32").prepare(model)
    assert (model.memory, memories(model)) == ("small", {"small"})


def test_a_memory_that_is_chosen_is_what_the_network_says():
    model = sb.create_model("vgg11", width=0.125)
    choose_execution(device="cpu", precision="fp32", memory="fast").prepare(model)
    assert (model.memory, memories(model)) == ("fast", {"fast"})


def test_bf16_is_chosen_where_the_processor_multiplies_in_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for capability, precision in (("AVX512", "bf16"), ("AVX2", "fp32"), ("DEFAULT", "fp32")):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert choose_execution(device="cpu").precision == precision


def test_what_is_chosen_is_said_with_how_to_choose():
    words, chosen = choice_in_words(), choose_execution()
    assert words.startswith(f"on {chosen.describe()}; to choose: execution=choose_execution(precision=")
    other = eval(words.rpartition("execution=")[2], {"choose_execution": choose_execution})
    assert other.precision != chosen.precision


@pytest.mark.parametrize(("neuron", "said"), [(nn.ReLU(), False), (sb.LIF(2), True)])
def test_neurons_are_said_to_be_compiled_where_there_are_some(neuron, said):
    net = nn.Sequential(nn.Linear(2, 2), neuron)
    chosen = choose_execution()
    assert ("compiled neurons" in choice_in_words(net)) == said
    assert chosen.describe(net) == chosen.describe() if said else chosen.describe().startswith(chosen.describe(net))


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:0"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match=f"device='{device}': must be one of auto, cpu, cuda"):
        choose_execution(device=device)
