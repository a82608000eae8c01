"""The model on paper: its counts are those of the network, and its times move as they must."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / "scripts" / "step_time_on_paper.py"
spec = importlib.util.spec_from_file_location("step_time_on_paper", FILE)
paper = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = paper  # where dataclasses look for it
spec.loader.exec_module(paper)


def test_its_counts_are_resnet_34():
    layers = paper.convolutions()
    assert len(layers) == 36
    assert sum(layer.macs for layer in layers) == pytest.approx(3.66e9, rel=0.01)  # the published number
    assert sum(layer.weights for layer in layers) == pytest.approx(21.27e6, rel=0.001)
    assert [layer.is_static for layer in layers] == [True] + [False] * 35
    assert (layers[0].inputs, layers[0].outputs) == (3 * 224 * 224, 64 * 112 * 112)


def test_more_gpus_are_faster_until_they_wait():
    layers = paper.convolutions()
    one, four = (sum(paper.seconds_of_one_gpu(layers, images=32, num_steps=steps)) for steps in (1, 4))
    assert 2.5 < four / one < 4  # the first convolution sees a static image
    assert paper.seconds_of_gradients(21_000_000, 8) == pytest.approx(2 * 7 / 8 * 84e6 / paper.WITHIN)
    assert paper.seconds_of_gradients(21_000_000, 16) > paper.seconds_of_gradients(21_000_000, 8)
    rates = [rate for *_, rate in paper.rows(2048, 4)]
    assert rates == sorted(rates)
    assert rates[3] < 8.01 * rates[0]
    small = [rate for *_, rate in paper.rows(256, 4)]
    assert small[3] < 6 * small[0]  # the kernels are launched no faster
