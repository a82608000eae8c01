"""Nothing is written that does not fire the same spikes."""

import json

import pytest
import torch

import shortback as sb
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
    assert "Its logits are the mean of its outputs over the steps." in (tmp_path / "net.nir.md").read_text()


def test_the_text_beside_a_nir_file_says_how_logits_are_read(tmp_path):
    model = network("foreign")
    model.readout = "steps"
    write(model, images(), tmp_path / "net.nir", to="nir")
    text = (tmp_path / "net.nir.md").read_text()
    assert "Its output at each step is the logits of that step." in text
    assert "mean" not in text


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
def test_a_streaming_program_is_checked_with_sequences(tmp_path, monkeypatch):
    model, x, file = network("foreign"), images(num_steps=3), tmp_path / "net.pt2"
    seen = []
    whole = writing._stream
    monkeypatch.setattr(writing, "_stream", lambda *given: seen.append(whole(*given)) or seen[-1])
    check = write(model, x, file, to="torch", streaming=True)
    assert (check.images, check.agreement) == (4, 1)
    content = json.loads((tmp_path / "net.pt2.json").read_text())
    assert content["input"] == ["batch", 3, 32, 32]
    assert content["streaming"]
    assert not content["static_input"]
    assert len(seen) == 1
    program, stream = load_program(file).module(), sb.stream(model)
    state = stream.initial_state(x[0])
    with torch.no_grad():
        for frame, checked in zip(x, seen[0], strict=True):
            y, state = program(frame, state)
            torch.testing.assert_close(y, checked, rtol=0, atol=1e-6)
        torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-5)


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
    with pytest.raises(ValueError, match=r"not written: block2\.relu does not fire as it did"):
        write(network("foreign"), images(16), tmp_path / "net.nir", to="nir")
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_said(tmp_path):
    model, x = network("resnet20"), images()
    there = tmp_path / "there.nir"
    there.write_text("mine")
    (tmp_path / "beside.onnx.json").write_text("mine")
    for file, settings, message in (
        (there, {"to": "nir"}, "is there already"),
        (tmp_path / "beside.onnx", {"to": "onnx"}, r"beside\.onnx\.json is there already"),
        (tmp_path / "no" / "net.nir", {"to": "nir"}, "there is no folder"),
        (tmp_path / "net", {"to": "caffe"}, "to='caffe'"),
        (tmp_path / "net", {"to": "torch"}, r"end in \.pt2; name it net\.pt2"),
        (tmp_path / "net.onnx", {"to": "onnx", "importer": "norse"}, "is for nir only"),
        (tmp_path / "net.nir", {"to": "nir", "streaming": True}, "is one step by itself"),
    ):
        with pytest.raises(ValueError, match=message):
            write(model, x, file, **settings)
    assert there.read_text() == "mine"
    for to in ("nir", "onnx"):
        with pytest.raises(ValueError, match=r"is in torch\.float64: pass model\.float\(\)"):
            write(network("foreign").double(), x.double(), tmp_path / "net", to=to)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(network("foreign"), x, tmp_path / "net.nir", to="nir", about={"who": object()})
    for sample, words in ((x[:0], "holds no image"), (x.numpy(), "must be a tensor")):
        with pytest.raises(ValueError, match=words):
            write(network("foreign"), sample, tmp_path / "net.nir", to="nir")
    assert {path.name for path in tmp_path.iterdir()} == {"there.nir", "beside.onnx.json"}


def test_an_image_that_is_no_number_is_named(tmp_path):
    """Its membranes are NaN and never fire, which every executor agrees on."""
    model = network("resnet20")
    for x in (images(5), images(5, num_steps=3)):
        x.view(-1, 5, 3, 32, 32)[-1, 3, 0, 7, 7] = torch.nan
        x.view(-1, 5, 3, 32, 32)[0, 1, 2, 0, 0] = -torch.inf
        for name, settings in {
            "net.nir": {"to": "nir"},
            "net.onnx": {"to": "onnx"},
            "net.pt2": {"to": "torch"},
        }.items():
            with pytest.raises(ValueError, match="NaN or infinity in 2 of its 5 images, at index 1, 3"):
                write(model, x, tmp_path / name, **settings)
    assert not list(tmp_path.iterdir())
