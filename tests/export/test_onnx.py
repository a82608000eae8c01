import pytest
import torch

from shortback.export.onnx import to_onnx
from tests.export.networks import images, network

pytestmark = pytest.mark.slow


def test_batches_of_any_size(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = network("foreign")
    file = tmp_path / "net.onnx"
    to_onnx(model, images()).save(str(file), external_data=False)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in (1, 7):
        x = images(count)
        (logits,) = session.run(["logits"], {"input": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(x), rtol=1e-4, atol=1e-5)
