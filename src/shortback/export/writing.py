"""Write an export, after running it with software outside this package and comparing it with the network."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shortback.choices import ExportFormat, NIRImporter, check_choice
from shortback.errors import UserError
from shortback.export.check import Check, Recording, compare, recorded
from shortback.export.executors import nir_runner, onnx_runner, program_runner
from shortback.export.nir import to_nir
from shortback.export.nir_readers import READERS, usual_dt
from shortback.export.onnx import onnx_of
from shortback.export.program import check_sample, deployable, to_program, traced
from shortback.export.stream import stream
from shortback.extras import need_extra
from shortback.files import replacing, write_text
from shortback.spiking import SpikingNetwork

_EXTRAS = {"nir": ("nir", "nirtorch"), "onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}


def write(
    model: SpikingNetwork,
    sample: Tensor,
    file: Path | str,
    *,
    to: ExportFormat,
    importer: NIRImporter = "any",
    streaming: bool = False,
    about: dict[str, Any] | None = None,
    then: Callable[[Path], dict[str, Any]] | None = None,
) -> Check:
    """Export a network, check the export with a sample, and write it, with the check beside it in `FILE.json`.

    Args:
        sample: some tens of real images, `[N, C, H, W]` or `[T, N, C, H, W]` as the export will take them. With
            `streaming`, the program gets the frames of a sequence one after the other, or the same frame `T` times.
        file: path to write; it must not exist.
        to: `"nir"`, checked with nirtorch; `"onnx"`, with onnxruntime; `"torch"`, a `torch.export` program, checked
            after saving and loading it.
        importer: for `"nir"`, see `to_nir`.
        streaming: for `"torch"`, whether the program takes one frame at a time; see `to_program`.
        about: further entries for `FILE.json`.
        then: called with the path of the checked file, before it is moved into place; returns further entries for
            `FILE.json`.

    Raises:
        ValueError: the file exists, an extra is not installed, the format cannot express the network, or spikes differ
            by more than rounding, with the first layer that differs.
    """
    file = Path(file)
    check_writable(file, to=to, importer=importer, streaming=streaming)
    check_sample(model, sample)
    for name, parameter in model.named_parameters():
        if to != "torch" and parameter.dtype != torch.float32:
            raise UserError(f"{to} is written in float32, and {name} is in {parameter.dtype}: pass model.float()")
    json.dumps(about)  # what cannot be written is said before the file is there
    with replacing(file) as temporary:
        if to == "nir":
            check = _write_nir(model, sample, temporary, importer=importer)
        elif to == "onnx":
            check = _write_onnx(model, sample, temporary)
        else:
            check = _write_program(model, sample, temporary, streaming=streaming)
        more = then(temporary) if then is not None else {}
    if to == "nir":
        more = {"written_for": importer, "dt": usual_dt(importer), **more}
    content = {
        "format": to,
        **_shapes(model, sample, streaming=streaming),
        **(about or {}),
        **more,
        "check": check.to_dict(),
    }
    write_text(file.with_name(f"{file.name}.json"), json.dumps(content, indent=2) + "\n")
    if to == "nir":
        write_text(
            file.with_name(f"{file.name}.md"), _readme(file, model, check, importer=importer, static=sample.ndim == 4)
        )
    return check


def check_writable(file: Path, *, to: ExportFormat, importer: NIRImporter, streaming: bool) -> None:
    """Check the arguments of `write` as far as possible before anything is loaded.

    Raises:
        ValueError: as for `write`.
    """
    check_choice("to", to, ExportFormat)
    check_choice("importer", importer, NIRImporter)
    if importer != "any" and to != "nir":
        raise UserError(f"importer={importer!r} is for nir only, and this is {to}")
    if streaming and to != "torch":
        raise UserError(f"streaming is for torch only, and this is {to}; a NIR graph is one step by itself")
    if to == "torch" and file.suffix != ".pt2":
        raise UserError(f"{file}: torch.export loads files that end in .pt2; name it {file.with_suffix('.pt2').name}")
    beside = [file.with_name(f"{file.name}.{suffix}") for suffix in (("json", "md") if to == "nir" else ("json",))]
    for each in (file, *beside):
        if each.exists():
            raise UserError(f"{each} is there already; name another file")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}")
    need_extra(to, *_EXTRAS[to])


class _Recorded(nn.Module):
    """A network that returns its logits, the outputs of every step and the spikes of every neuron call."""

    def __init__(self, model: SpikingNetwork, sample: Tensor) -> None:
        super().__init__()
        self.model, self.mean = copy.copy(model), model.readout == "mean"
        self.model.readout = "steps"
        with torch.no_grad(), recorded(self.model) as spikes:
            self.model(sample)
        self.calls = tuple(spikes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with recorded(self.model) as spikes:
            steps = self.model(x)
        return (steps.mean(0) if self.mean else steps, steps, *spikes.values())

    def recording(self, outputs: tuple[Tensor, ...]) -> Recording:
        """The recording made of the outputs of an exported copy of this network."""
        _, steps, *spikes = outputs
        by_call = zip(self.calls, spikes, strict=True)
        return Recording(steps, {call: value.unflatten(0, (len(steps), -1)) for call, value in by_call})


def _write_nir(model: SpikingNetwork, sample: Tensor, file: Path, *, importer: NIRImporter) -> Check:
    import nir

    nir.write(str(file), to_nir(model, sample, importer=importer))
    graph = nir.read(file)
    theirs = nir_runner(graph, num_steps=model.num_steps, dt=float(graph.metadata["dt"]), reader=importer)(sample)
    neurons = f" with the neurons of {READERS[importer].name}" if importer in READERS else ""
    return _checked(model, sample, theirs, executor=f"nirtorch{neurons}")


def _write_onnx(model: SpikingNetwork, sample: Tensor, file: Path) -> Check:
    network = _Recorded(deployable(model), sample)
    program = onnx_of(network, sample)
    program.save(str(file), external_data=False)
    outputs = onnx_runner(file)(sample)
    check = _checked(model, sample, network.recording(outputs), executor="onnxruntime")
    del program.model.graph.outputs[1:]  # only the check needed them
    program.save(str(file), external_data=False)
    _require_same(onnx_runner(file)(sample)[0], outputs[0])
    return check


def _write_program(model: SpikingNetwork, sample: Tensor, file: Path, *, streaming: bool) -> Check:
    network = _Recorded(deployable(model), sample)
    outputs = program_runner(traced(network, sample))(sample)
    theirs = network.recording(outputs)
    content = io.BytesIO()  # torch.export.save wants a name in .pt2, which the temporary file does not have
    given = sample[0] if streaming and sample.ndim == 5 else sample
    torch.export.save(to_program(model, given, streaming=streaming), content)
    file.write_bytes(content.getbuffer())
    loaded = load_program(file)
    if streaming:
        steps = _stream(loaded, model, sample)
        if model.readout == "mean":  # the program returns the mean so far
            counts = torch.arange(1, len(steps) + 1, device=steps.device).view(-1, 1, 1)
            _require_same(steps, theirs.outputs.cumsum(0) / counts)
        else:
            _require_same(steps, theirs.outputs)
    else:
        _require_same(program_runner(loaded)(sample)[0], outputs[0])
    return _checked(model, sample, theirs, executor="torch.export")


def load_program(file: Path) -> torch.export.ExportedProgram:
    """Load a `torch.export` program from a file of any name."""
    return torch.export.load(io.BytesIO(file.read_bytes()))


def _stream(program: torch.export.ExportedProgram, model: SpikingNetwork, sample: Tensor) -> Tensor:
    """The outputs of a streaming program at each step, `[T, N, K]`, for a sequence or one frame given `T` times."""
    frames = sample if sample.ndim == 5 else [sample] * model.num_steps
    module, state, outputs = program.module(), stream(model).initial_state(frames[0]), []
    with torch.no_grad():
        for frame in frames:
            output, state = module(frame, state)
            outputs.append(output)
    return torch.stack(outputs)


def _checked(model: SpikingNetwork, sample: Tensor, theirs: Recording, *, executor: str) -> Check:
    check = compare(model, sample, theirs, executor=executor)
    check.require()
    return check


def _require_same(written: Tensor, checked: Tensor) -> None:
    """Check that the file gives the checked outputs; without the extra outputs its rounding may differ, but no more."""
    if not torch.allclose(written, checked, atol=1e-5, rtol=1e-4):
        difference = float((written - checked).abs().max())
        raise UserError(
            f"the export is not written: without the extra outputs of the check, its output differs by {difference:.1e}"
        )


def _shapes(model: SpikingNetwork, sample: Tensor, *, streaming: bool) -> dict[str, Any]:
    is_sequence = sample.ndim == 5
    frame = ["batch", *sample.shape[-3:]]
    return {
        "num_steps": model.num_steps,
        "input": [len(sample), *frame] if is_sequence and not streaming else frame,
        "static_input": not is_sequence,
        "streaming": streaming,
        "readout": model.readout,
    }


def _readme(file: Path, model: SpikingNetwork, check: Check, *, importer: NIRImporter, static: bool) -> str:
    what = "the same image at every step" if static else "one frame a step"
    reader, whom = READERS.get(importer), ""
    if reader is not None:
        batch = "" if reader.has_batches else ", which takes one image at a time, without an axis for the batch"
        whom = f"\nIt is written for {reader.name}, and may be wrong in others: `{reader.call}`{batch}.\n"
    fires = """Its neurons fire above their threshold; for neurons that fired at it in the original network, it is
the next float32 below."""
    if importer == "spikingjelly":
        fires = "Its neurons fire at their threshold too, as in SpikingJelly."
    logits = "Its logits are the mean of its outputs over the steps."
    if model.readout == "steps":
        logits = "Its output at each step is the logits of that step."
    return f"""# {file.name}

A spiking network in NIR. Give it {what}, {model.num_steps} steps of {usual_dt(importer):g} s, all membranes at 0 before
the first. {logits} How images are prepared, and the names
of the classes, are in {file.name}.json where they are known.
{whom}
{fires} Several edges into a node are added up.

{check}
"""
