"""The benchmarks' harness counts and divides right, its gates stop what disagrees, and every question can be asked."""

import importlib
import json
import mmap
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from shortback.neurons import LIF

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "benchmarks"
HELPERS = {"harness", "machine", "workloads", "gates", "peaks"}
QUESTIONS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in HELPERS)
ON_LINUX = Path("/proc/self/clear_refs").exists()


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    """As `python benchmarks/floor.py` has it; the modules' names are too common to leave them to other tests."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)  # other tests would have to compile again
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {*HELPERS, *QUESTIONS, "peers"}:
            del sys.modules[name]


@pytest.fixture
def harness():
    return importlib.import_module("harness")


@pytest.fixture
def clock(harness, monkeypatch):
    """A clock that only fake steps move."""

    class Clock:
        now = 0.0

        def step(self, log, name, *durations):
            remaining = iter(durations)

            def step():
                log.append(name)
                self.now += next(remaining)

            return step

    clock = Clock()
    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock.now)
    return clock


class TestCompare:
    def test_rounds_are_interleaved_after_gate_and_warm_up(self, harness, clock):
        log = []

        def gate():
            log.append("gate")
            return {"logits": 0.0}

        sides = [
            harness.Side("a", lambda: clock.step(log, "a", 9, 9, 1, 1, 1)),
            harness.Side("b", lambda: clock.step(log, "b", 9, 9, 1, 1, 1)),
        ]
        result = harness.compare(sides, rounds=3, warmup=2, gate=gate)
        assert log == ["gate", "a", "a", "b", "b", "a", "b", "a", "b", "a", "b"]
        assert result["gate"] == {"logits": 0.0}

    def test_medians_quartiles_and_ratios(self, harness, clock, capsys):
        sides = [
            harness.Side("ours", lambda: clock.step([], "ours", 1, 2, 3, 4, 10)),
            harness.Side("theirs", lambda: clock.step([], "theirs", 2, 2, 4, 4, 40)),
        ]
        result = harness.compare(sides, rounds=5, warmup=0, title="a title")
        assert result["sides"]["ours"] == {"median": 3, "quartiles": [2, 4], "samples": [1, 2, 3, 4, 10]}
        assert list(result["over"]) == ["ours / theirs"]
        ratio = result["over"]["ours / theirs"]
        assert ratio["of_medians"] == 3 / 4
        assert ratio["by_round"] == {"median": 0.75, "quartiles": [0.5, 1.0]}  # of 0.5, 1, 0.75, 1, 0.25
        printed = capsys.readouterr().out
        assert "a title" in printed
        assert "0.750" in printed

    def test_the_pairs_asked_for(self, harness, clock):
        sides = [harness.Side(name, lambda s=s: clock.step([], "", s)) for name, s in (("a", 1), ("b", 2), ("c", 4))]
        result = harness.compare(sides, rounds=1, warmup=0, over=[("c", "a"), ("a", "b")])
        assert {pair: ratio["of_medians"] for pair, ratio in result["over"].items()} == {"c / a": 4, "a / b": 0.5}

    def test_a_gate_that_fails_stops_before_anything_is_built(self, harness):
        def gate():
            raise harness.DisagreementError("logits differ")

        def set_up():
            raise AssertionError("must not be reached")

        with pytest.raises(harness.DisagreementError, match="logits differ"):
            harness.compare([harness.Side("a", set_up)], rounds=1, warmup=1, gate=gate)

    def test_a_step_that_is_not_finite_stops(self, harness):
        side = harness.Side("a", lambda: lambda: torch.tensor(float("nan")))
        with pytest.raises(harness.DisagreementError, match=r"a: .* not finite"):
            harness.compare([side], rounds=1, warmup=1)

    def test_a_side_that_may_fail_leaves_its_error(self, harness):
        def set_up():
            raise RuntimeError("does not compile\nand much more")

        sides = [harness.Side("ours", lambda: lambda: None), harness.Side("theirs", set_up, may_fail=True)]
        result = harness.compare(sides, rounds=1, warmup=0)
        assert result["sides"]["theirs"] == {"failed": "RuntimeError: does not compile"}
        assert result["over"] == {}
        with pytest.raises(RuntimeError, match="does not compile"):
            harness.compare([replace(sides[1], may_fail=False)], rounds=1, warmup=0)


class TestReport:
    @staticmethod
    def measure(settings):
        """Stands for a benchmark; its module's docstring stands for the question."""
        return {"rounds": settings.rounds, "samples": [0.25, 0.5]}

    def test_json_has_results_settings_and_environment(self, harness, tmp_path):
        out = tmp_path / "results" / "one.json"
        harness.run(self.measure, ["--quick", "--out", str(out), "--only", "x"], takes=("only",))
        report = json.loads(out.read_text())
        assert report["benchmark"] == "test_benchmarks"
        assert report["question"] == __doc__
        assert report["results"] == {"rounds": 2, "samples": [0.25, 0.5]}
        assert report["settings"]["quick"] is True
        assert report["settings"]["only"] == "x"
        assert "[0.25, 0.5]" in out.read_text()
        environment = report["environment"]
        assert environment["versions"]["torch"].startswith(torch.__version__.split("+")[0])
        assert environment["cpu"]["threads"] == torch.get_num_threads()
        assert set(environment["cpu"]["flags"]) >= {"amx_bf16", "avx512_bf16"}
        assert environment["date"].endswith("+00:00")

    def test_rounds_not_quick(self, harness):
        seen = []
        harness.run(lambda settings: seen.append(settings) or {}, [])
        assert seen[0].rounds > seen[0].warmup > 1

    def test_a_setting_that_is_not_heeded_is_refused(self, harness, capsys):
        with pytest.raises(SystemExit):
            harness.run(self.measure, ["--only", "x"])
        assert "--only" in capsys.readouterr().err

    def test_a_case_that_is_not_there_is_refused(self, harness, capsys):
        with pytest.raises(SystemExit):
            harness.run(lambda settings: {"cases": []}, ["--only", "resnet1"], takes=("only",))
        assert "'resnet1' is part of no case's name" in capsys.readouterr().err


class TestQuestions:
    @pytest.mark.parametrize("name", QUESTIONS)
    def test_has_a_question_measure_and_main(self, name, capsys):
        module = importlib.import_module(name)
        assert module.__doc__.splitlines()[0].endswith("?")
        assert callable(module.measure)
        with pytest.raises(SystemExit, match="0"):
            module.main(["--help"])
        assert "--quick" in capsys.readouterr().out

    def test_neuron_runs(self, tmp_path, monkeypatch):
        neuron = importlib.import_module("neuron")
        monkeypatch.setattr(neuron.sb, "LIF", partial(LIF, backend="reference"))  # which takes no compiler's time
        neuron.main(["--quick", "--only", "fp32", "--out", str(tmp_path / "neuron.json")])
        (case,) = json.loads((tmp_path / "neuron.json").read_text())["results"]["cases"]
        ratio = case["sides"]["neuron"]["median"] / case["sides"]["copy"]["median"]
        assert case["over_bandwidth"] == pytest.approx(ratio * 2 / 5)

    def test_growth_draws(self, tmp_path):
        pytest.importorskip("matplotlib")
        table = [{"depth": d, "seconds": d / 100, "peak_bytes": d * 2**20} for d in (20, 32)]
        importlib.import_module("growth").draw({"cases": [{"axis": "depth", "table": table}]}, tmp_path / "growth.png")
        assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


class TestWorkloads:
    def test_the_twin_has_our_layers_and_takes_all_steps_as_one_batch(self):
        workloads = importlib.import_module("workloads")
        ours = workloads.build(workloads.QUICK, workloads.Variant(compile="off"))
        variant = workloads.Variant(library="relu", compile="off")
        twin = workloads.build(workloads.QUICK, variant)
        assert [p.shape for p in twin.parameters()] == [p.shape for p in ours.parameters()]
        x, y = workloads.batch(workloads.QUICK, variant)
        assert twin(x).shape == (len(y), 10)
        assert len(y) == workloads.QUICK.num_steps * workloads.QUICK.batch_size

    def test_a_step_trains(self):
        workloads = importlib.import_module("workloads")
        variant = workloads.Variant(compile="off", precision="fp32", branches="blocks")
        step = workloads.training_step(workloads.QUICK, variant)
        losses = [step(*workloads.batch(workloads.QUICK, variant)).item() for _ in range(4)]
        assert losses[-1] < losses[0]


class TestGates:
    def test_difference(self, harness):
        gates = importlib.import_module("gates")
        a = torch.tensor([3.0, 4.0]).double()
        assert gates.difference("logits", a, a) == 0
        with pytest.raises(harness.DisagreementError, match=r"logits: the difference is 2.00e-01"):
            gates.difference("logits", a + torch.tensor([0.0, 1.0]), a)
        with pytest.raises(harness.DisagreementError, match="nothing seems to fire"):
            gates.difference("logits", torch.ones(2), torch.ones(2))
        with pytest.raises(harness.DisagreementError):
            gates.difference("logits", a * float("nan"), a)

    def test_another_decay_does_not_pass(self, harness, monkeypatch):
        gates, workloads = (importlib.import_module(name) for name in ("gates", "workloads"))
        build = gates.build

        def tampered(work, variant):
            net = build(work, replace(variant, compile="off", memory=None))
            if variant.channels_last:
                net.network.stem.neuron1.decay = 0.5
            return net

        monkeypatch.setattr(gates, "build", tampered)
        with pytest.raises(harness.DisagreementError):
            gates.reference(workloads.QUICK, workloads.Variant())

    @pytest.mark.parametrize("decay", [0.25, 0.5])
    def test_what_infers_is_gated_too(self, harness, monkeypatch, decay):
        gates, workloads = (importlib.import_module(name) for name in ("gates", "workloads"))
        build = gates.build

        def tampered(work, variant):
            net = build(work, replace(variant, compile="off", memory=None))
            if variant.channels_last:  # stands for what is compiled
                net.network.stem.neuron1.decay = decay
            return net

        monkeypatch.setattr(gates, "build", tampered)
        if decay == 0.25:
            assert gates.inference(workloads.QUICK, workloads.Variant())["inference"] < 1e-9
        else:
            with pytest.raises(harness.DisagreementError):
                gates.inference(workloads.QUICK, workloads.Variant())

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("library", ["spikingjelly", "snntorch"])
    @pytest.mark.parametrize("num_steps", [1, 3])
    def test_peers_agree(self, library, num_steps):
        pytest.importorskip(library)
        gates, workloads = (importlib.import_module(name) for name in ("gates", "workloads"))
        differences = gates.peer(replace(workloads.QUICK, num_steps=num_steps), library)
        assert differences["logits"] < 1e-9
        assert ("gradient" in differences) == (library == "spikingjelly")

    def test_a_peer_that_is_missing_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "snntorch", None)
        with pytest.raises(ModuleNotFoundError, match=r"shortback\[bench\]"):
            importlib.import_module("peers.snntorch")


class TestPeaks:
    def test_saved_bytes(self):
        peaks = importlib.import_module("peaks")
        net = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.Tanh(), torch.nn.Tanh())
        x = torch.randn(2, 4)
        # The input of the layer and both outputs of the tanh, each once; the weight is the network's own.
        assert peaks.saved_bytes(net, x) == 4 * (2 * 4 + 2 * 8 + 2 * 8)

    @pytest.mark.skipif(not ON_LINUX, reason="the kernel keeps the peak on Linux")
    def test_the_peak_is_what_a_process_had_in_between(self):
        peaks = importlib.import_module("peaks")
        before = peaks._begin("cpu")
        size = 64 * 2**20
        with mmap.mmap(-1, size) as block:  # and not an allocator, which may have as much at hand
            block.write(b"1" * size)
        assert size * 0.9 < peaks._peak_since("cpu") - before
        before = peaks._begin("cpu")
        assert peaks._peak_since("cpu") - before < size * 0.1

    @pytest.mark.skipif(not ON_LINUX, reason="the resident set is read from /proc")
    def test_what_was_freed_before_serves_no_step_unseen(self):
        """Though our side has told glibc to keep it; in a process of its own, as that holds for all of a process."""
        code = """
import peaks
import torch
from shortback.allocator import keep_freed_memory
print(keep_freed_memory())
block = torch.ones(2**24)
del block
before = peaks._resident()
peaks.give_back_freed_memory(from_now_on=True)
print(before - peaks._resident())
"""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        kept, freed = done.stdout.split()
        if kept == "False":
            pytest.skip("the C library is not glibc")
        assert int(freed) > 0.9 * 4 * 2**24
