"""Nothing is written that does not fire the same spikes."""

import json

import pytest
import torch

from shortback.export import writing
from shortback.export.writing import load_program, write
from tests.export.networks import images, network

pytest.importorskip("nir")


def test_nir(tmp_path):
    file = tmp_path / "net.nir"
    check = write(network("foreign"), images(), file, to="nir", about={"classes": ["a"]})
    assert {path.name for path in tmp_path.iterdir()} == {"net.nir", "net.nir.json", "net.nir.md"}
    content = json.loads((tmp_path / "net.nir.json").read_text())
    assert content["check"]["flipped"] == check.flipped
    assert content["check"]["executor"] == "nirtorch"
    assert content["classes"] == ["a"]
    assert content["input"] == ["batch", 3, 32, 32]
    assert str(check) in (tmp_path / "net.nir.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_programs(tmp_path, streaming):
    model, x, file = network("foreign"), images(), tmp_path / "net.pt2"
    check = write(model, x, file, to="torch", streaming=streaming)
    assert check.images == 4
    program = load_program(file).module()
    if not streaming:
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_onnx_has_one_output(tmp_path):
    onnx = pytest.importorskip("onnx")
    file = tmp_path / "net.onnx"
    write(network("foreign"), images(), file, to="onnx")
    assert [output.name for output in onnx.load(file).graph.output] == ["logits"]


def test_a_difference_is_not_written(tmp_path, monkeypatch):
    """A threshold that is a thousandth off, as a fault of ours would make it."""
    whole = writing.to_nir

    def wrong(*arguments, **settings):
        graph = whole(*arguments, **settings)
        graph.nodes["block2.relu"].v_threshold += 1e-3
        return graph

    monkeypatch.setattr(writing, "to_nir", wrong)
    with pytest.raises(ValueError, match=r"not written, as block2\.relu does not do what it did"):
        write(network("foreign"), images(16), tmp_path / "net.nir", to="nir")
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_said(tmp_path):
    model, x = network("resnet20"), images()
    there = tmp_path / "there.nir"
    there.write_text("mine")
    for file, settings, message in (
        (there, {"to": "nir"}, "is there already"),
        (tmp_path / "no" / "net.nir", {"to": "nir"}, "there is no folder"),
        (tmp_path / "net", {"to": "caffe"}, "to='caffe'"),
        (tmp_path / "net", {"to": "torch"}, r"end in \.pt2; name it net\.pt2"),
        (tmp_path / "net.onnx", {"to": "onnx", "importer": "norse"}, "is of NIR"),
        (tmp_path / "net.nir", {"to": "nir", "streaming": True}, "is one step by itself"),
    ):
        with pytest.raises(ValueError, match=message):
            write(model, x, file, **settings)
    assert there.read_text() == "mine"
