"""Progress in a notebook that is executed as one."""

import nbformat
import pytest

from shortback.training.notebook import in_notebook

pytestmark = pytest.mark.filterwarnings("default")  # of the kernel's sockets

CELL = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from shortback.training import choose_execution, fit

torch.manual_seed(0)
data = DataLoader(TensorDataset(torch.randn(32, 4), torch.arange(32) % 2), batch_size=8)
plain = choose_execution(compile="off", precision="fp32")
fit(nn.Linear(4, 2), data, epochs=3, folder="run", execution=plain, log_every=5);
"""


def test_a_bar_and_a_line_an_epoch(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = notebook.cells[0].outputs
    (bar,) = [output["data"] for output in outputs if "data" in output]
    assert "<progress max='12' value='12'></progress>" in bar["text/html"]
    assert bar["text/plain"].startswith("Linear 12/12 loss 0.")
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    assert [line.split("  ")[1] for line in lines if "epoch" in line] == ["epoch 1", "epoch 2", "epoch 3"]
    assert not any("step" in line for line in lines)


def test_elsewhere_there_is_none():
    assert not in_notebook()
