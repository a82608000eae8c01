import logging
import warnings

import pytest
import torch

import shortback as sb
from shortback.ops import backend


@pytest.fixture(autouse=True)
def _forget():
    backend._resolve.cache_clear()
    yield
    backend._resolve.cache_clear()


def test_without_a_compiler_auto_says_so_once_and_compiled_raises(monkeypatch, caplog):
    monkeypatch.setattr(backend, "_why_not_compiled", lambda device_type: "no C++ compiler")
    with caplog.at_level(logging.INFO, logger="shortback"):
        assert backend.resolve("auto", "cpu") == "reference"
        assert backend.resolve("auto", "cpu") == "reference"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no C++ compiler" in caplog.text
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        backend.resolve("compiled", "cpu")


def test_with_a_compiler_auto_compiles():
    assert backend.resolve("auto", "cpu") == "compiled"
    assert backend.resolve("reference", "cpu") == "reference"


def test_a_device_without_kernels():
    assert backend.resolve("auto", "mps") == "reference"
    with pytest.raises(RuntimeError, match="cpu and cuda, not mps"):
        backend.resolve("compiled", "mps")


def test_an_unknown_name():
    with pytest.raises(ValueError, match="must be one of auto, reference, compiled"):
        backend.resolve("fast", "cpu")


def test_what_is_traced_and_what_a_mode_sees_decide_for_no_later_call():
    from torch.utils.flop_counter import FlopCounterMode

    backend._resolve.cache_clear()
    backend._why_not_compiled.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a trace fixes
        traced = torch.jit.trace(sb.LIF(2), torch.rand(4, 3))
    assert traced(torch.ones(4, 3)).shape == (4, 3)
    with FlopCounterMode(display=False):
        sb.LIF(2)(torch.rand(4, 3))
    assert backend.resolve("auto", "cpu") == "compiled"


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap])
def test_what_a_transform_sees_decides_for_no_later_call_either(transform):
    backend._why_not_compiled.cache_clear()
    seen = []
    transform(lambda x: seen.append(backend.resolve("compiled", "cpu")) or x.sum())(torch.rand(4, 3))
    assert seen == ["compiled"]
    assert torch.func.grad(lambda x: x.square())(torch.tensor(3.0)) == 6


def test_the_compilers_own_warnings_are_on_again_afterwards(monkeypatch):
    compiler = logging.getLogger("torch.utils.cpp_extension")
    monkeypatch.setattr(compiler, "level", logging.WARNING)
    levels = []
    monkeypatch.setattr(backend.kernels, "run", lambda body, constants, x: levels.append(compiler.level))
    backend._why_not_compiled.cache_clear()
    assert backend._why_not_compiled("cpu") is None
    backend._why_not_compiled.cache_clear()
    assert (levels, compiler.level) == ([logging.ERROR], logging.WARNING)
