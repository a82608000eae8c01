"""Write the tables of the pages in docs from benchmarks/results, each between `<!-- name -->` and `<!-- end -->`.

The name is that of a file of results, followed by `-something` where one file yields several tables, or one of `OWN`.

python scripts/docs_tables.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "docs" / "performance.md", ROOT / "docs" / "results.md")
MIB = 2**20
WITH_LOGITS = {  # trainings with added logits, by the file with their results
    "ablation_plain32_arctan_logits": "32 plain layers, arctan",
    "ablation_plain32_logits": "32 plain layers, triangular",
    "ablation_resnet20_logits": "ResNet-20, a branch per stage",
    "ablation_paper_resnet18": "narrow ResNet-18, 15 epochs",
    "ablation_paper_resnet18_30": "narrow ResNet-18, 30 epochs",
    "ablation_paper_resnet34": "narrow ResNet-34, 15 epochs",
    "ablation_paper_resnet34_30": "narrow ResNet-34, 30 epochs",
    "ablation_nmnist_plain32": "N-MNIST, 32 plain layers",
    "ablation_nmnist_resnet20": "N-MNIST, ResNet-20",
    "ablation_objects_plain32": "DVS128 objects, 32 plain layers",
    "ablation_objects_resnet20": "DVS128 objects, ResNet-20",
}


def render(text: str) -> str:
    """Return the page with its tables updated."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in OWN:
            return f"<!-- {name} -->\n" + "\n".join(OWN[name]()) + "\n<!-- end -->"
        found = read(name.partition("-")[0])
        kind = re.sub("_(avx2|amx|jemalloc)", "", name)  # the same benchmark on another processor or allocator
        lines = ablation(found["groups"]) if "groups" in found else TABLES[kind](found["results"])
        return f"<!-- {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *map(list, rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def ratio(over: dict[str, Any]) -> str:
    """A ratio of medians, and the quartiles of the ratios by round."""
    low, high = over["by_round"]["quartiles"]
    return f"{over['of_medians']:.2f} ({low:.2f} to {high:.2f})"


def ms(side: dict[str, Any]) -> str:
    return "failed" if "failed" in side else f"{side['median'] * 1e3:.0f} ms"


def floor(results: dict[str, Any]) -> list[str]:
    rows = (
        [
            case["case"],
            ms(case["sides"]["shortback"]),
            ms(case["sides"]["relu"]),
            ratio(case["over"]["shortback / relu"]),
        ]
        for case in results["cases"]
    )
    return table(["network", "spiking step", "ReLU step", "ratio"], rows)


def peers(job: str) -> Callable[[dict[str, Any]], list[str]]:
    def rows(results: dict[str, Any]) -> Iterable[list[str]]:
        for case in results["cases"]:
            if case["job"] != job or case["compile"] != "neuron":
                continue
            row = [case["case"], ms(case["sides"]["shortback"])]
            for library in ("spikingjelly", "snntorch"):
                row.append(ratio(case["over"][f"shortback / {library} as run"]))
                tuned = (case["over"][f"shortback / {library} tuned{kind}"] for kind in ("", ", contiguous"))
                row.append(ratio(max(tuned, key=lambda over: over["of_medians"])))
            yield row

    headings = ["network", "ours", "/ SpikingJelly as run", "/ tuned", "/ snnTorch as run", "/ tuned"]
    return lambda results: table(headings, rows(results))


def branches(results: dict[str, Any]) -> list[str]:
    """Memory is the memory in use where it was measured, and the peak in older files."""
    key = "over_in_use" if all("over_in_use" in case["memory"] for case in results["cases"]) else "over"
    rows = (
        [
            case["case"],
            case["branches"],
            ratio(case["training"]["over"]["shortcut / vanilla"]),
            f"{case['memory'][key]['shortcut / vanilla']:.2f}",
            ratio(case["inference"]["over"]["stripped / never attached"]),
        ]
        for case in results["cases"]
    )
    memory = "memory in use" if key == "over_in_use" else "peak memory"
    return table(["network", "branches at", "training time", memory, "stripped inference time"], rows)


def any_network(results: dict[str, Any]) -> list[str]:
    rows = (
        [
            case["case"],
            str(case["branches"]),
            ratio(case["training"]["over"]["branches / vanilla"]),
        ]
        for case in results["cases"]
    )
    return table(["network", "branches", "training time"], rows)


def memory(results: dict[str, Any]) -> list[str]:
    rows = []
    for case in results["cases"]:
        peaks, sides, over = case["memory"]["peaks"], case["time"]["sides"], case["memory"]["over"]
        for name, peak in peaks.items():
            saved = "" if peak["saved_bytes"] is None else f"{peak['saved_bytes'] / MIB:.0f}"
            ratios = [f"{over[f'{name} / {other}']:.2f}" if f"{name} / {other}" in over else "" for other in THEIRS]
            sizes = [f"{peak[key] / MIB:.0f}" for key in ("peak_bytes", "in_use_bytes")]
            rows.append([case["case"], name, *sizes, saved, ms(sides[name]), *ratios])
    return table(
        ["network", "side", "peak MiB", "in use MiB", "saved MiB", "step", "/ as run", "/ tuned", "/ level 1"], rows
    )


THEIRS = ("spikingjelly as run", "spikingjelly tuned", "spikingjelly tuned, level 1")


def neuron(results: dict[str, Any]) -> list[str]:
    rows = (
        [case["case"], f"{case['over_bandwidth']:.2f}", f"{case['bytes_per_second'] / 1e9:.1f} GB/s"]
        for case in results["cases"]
    )
    return table(["layer", "time / time of its bytes", "bandwidth of a copy"], rows)


def growth(results: dict[str, Any]) -> list[str]:
    rows = (
        [
            case["axis"],
            str(row[case["axis"]]),
            f"{row['seconds'] * 1e3:.0f} ms",
            f"{row['seconds_each'] * 1e3:.2f} ms",
            f"{row['peak_bytes'] / MIB:.0f} MiB",
        ]
        for case in results["cases"]
        for row in case["table"]
    )
    return table(["along", "value", "step", "step / value", "peak"], rows)


def whole_job(results: dict[str, Any]) -> list[str]:
    rates, over = results["images_per_second"], results["over_bare"]
    names = {"bare": "the bare step", "in_steps": "all steps of the run", "in_all": "with validation and checkpoints"}
    rows = (
        [text, f"{rates[name]['median']:.0f}", f"{over[name]['median']:.2f}" if name in over else "1"]
        for name, text in names.items()
    )
    return table(["", "images/s", "over the bare step"], rows)


def diagnosis(results: dict[str, Any]) -> list[str]:
    rows = (
        [
            case["case"],
            ms(case["sides"]["diagnosis"]),
            ratio(case["over"]["diagnosis / step"]),
            f"{case['peak_over_step']:.2f}",
            f"{case['look_over_run']:.1%}",
        ]
        for case in results["cases"]
    )
    return table(["network", "diagnosis", "/ a training step", "peak / that of a step", "looks, of a run"], rows)


def startup(results: dict[str, Any]) -> list[str]:
    rows = ([name, f"{found['wait']['median']:.1f} s"] for name, found in results.items())
    return table(["process", "waits"], rows)


def ablation(groups: list[dict[str, Any]]) -> list[str]:
    """One row per group with finished runs."""
    varied = any(group["settings"] for group in groups)
    rows = []
    for group in groups:
        if group["accuracy"] is None:
            continue
        tests = [f"{100 * run['summary']['test_accuracy']:.1f}" for run in group["runs"] if run["summary"]]
        row = [_short(group["settings"])] if varied else []
        row += [group["method"], points(group["validation"]), points(group["validation_difference"], signed=True)]
        row += [", ".join(tests), points(group["accuracy"]), points(group["difference"], signed=True)]
        difference = group["difference"] or {"estimate": {"interval": None}, "p_value": None}
        interval = difference["estimate"]["interval"] or ()
        row.append(" to ".join(f"{100 * bound:+.2f}" for bound in interval))
        row.append("" if difference["p_value"] is None else f"{difference['p_value']:.2g}")
        rows.append([*row, steps_to_vanilla(group) if group["difference"] else ""])
    headings = ["method", "validation", "to vanilla", "test by seed", "test", "to vanilla", "95 % interval", "p"]
    return table([*(["setting"] if varied else []), *headings, "steps to vanilla's end"], rows)


def _short(settings: dict[str, str]) -> str:
    """Settings without the sections that are clear from the last part of a key, and without those that are null."""
    parts = [(re.sub(r"^(branches|model\.neuron|optimizer)\.", "", key), value) for key, value in settings.items()]
    return ", ".join(f"{key}={value}" for key, value in parts if value != "null")


def logits() -> list[str]:
    """One row per training with added logits: the mean test accuracy of each method, with the recipe's settings."""
    rows = []
    for name, training in WITH_LOGITS.items():
        of = {group["method"]: group for group in read(name)["groups"] if not group["setting"]}
        counts = {method: sum(run["summary"] is not None for run in group["runs"]) for method, group in of.items()}
        row = [training, ", ".join(map(str, dict.fromkeys(counts.values())))]
        row += [
            format(100 * of[method]["accuracy"]["mean"], ".1f") if method in of else "not run"
            for method in ("vanilla", "shortcut", "evolutionary")
        ]
        difference = of["evolutionary"]["difference"]["estimate"]
        interval = " to ".join(f"{100 * bound:.1f}" for bound in difference["interval"] or ())
        rows.append([*row, f"{100 * difference['mean']:+.1f}" + (f" ({interval})" if interval else "")])
    headings = ["network", "seeds", "vanilla", "constant", "falling", "falling to vanilla"]
    return table(headings, rows)


def remedies() -> list[str]:
    """One row per remedy: the test accuracy by seed and its mean without and with branches, and their difference."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in read("remedies")["groups"]:
        of, form = group["settings"], "vanilla"
        if group["method"] == "evolutionary":
            form = {"additive": "losses"}.get(of.get("branches.combine"), "logits")
        names = {
            "skips of spikes to currents": of["model.residual"] == "spiking",
            "skips of spikes (SEW)": of["model.residual"] == "sew",
            "skips of currents (membrane)": of["model.residual"] == "membrane",
            "TEBN": of.get("model.norm") == "tebn",
            "TET": of.get("loss.kind") == "tet",
            "learning rate 0.2": of.get("optimizer.lr") == "0.2",
        }
        name = next((name for name, is_so in names.items() if is_so), "none")
        found.setdefault(name, {})[form] = group
    rows = []
    others = [(name, "losses") for name in found if name != "none"]
    for name, with_branches in (("none", "losses"), ("none", "logits"), *others):
        row = ["none, logits added" if with_branches == "logits" else name]
        for form in ("vanilla", with_branches):
            accuracies = [100 * run["summary"]["test_accuracy"] for run in found[name][form]["runs"]]
            by_seed = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
            row.append(f"{sum(accuracies) / len(accuracies):.1f} ({by_seed})")
        estimate = found[name][with_branches]["difference"]["estimate"]
        low, high = estimate["interval"]
        rows.append([*row, f"{100 * estimate['mean']:+.1f} ({100 * low:.1f} to {100 * high:.1f})"])
    return table(["remedy", "without branches", "with branches", "difference"], rows)


def dead_networks() -> list[str]:
    """One row per depth and method: how the network starts, and the test accuracy of each seed and their mean."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in read("dead_networks")["runs"]:
        groups.setdefault((run["depth"], run["method"]), []).append(run)
    rows = []
    for (depth, method), runs in groups.items():
        verdicts = dict.fromkeys(run["before"]["verdict"] for run in runs)
        accuracies = [100 * run["test_accuracy"] for run in runs]
        by_seed = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
        rows.append([str(depth), method, ", ".join(verdicts), by_seed, f"{sum(accuracies) / len(accuracies):.1f}"])
    return table(["layers", "method", "at the start", "test by seed", "test"], rows)


def firing_rates() -> list[str]:
    """One row per network, form and method: the means over the seeds of firing rates, operations and accuracies."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in read("firing_rates")["runs"]:
        form = "" if run["method"] == "vanilla" else {"logits": "logits", "additive": "losses"}[run["combine"]]
        groups.setdefault((run["network"], run["method"], form), []).append(run)
    rows = []
    order = ["vanilla", "shortcut", "evolutionary"]
    networks = list(dict.fromkeys(network for network, *_ in groups))
    for key in sorted(groups, key=lambda key: (networks.index(key[0]), order.index(key[1]), key[2])):
        runs = groups[key]
        rates, acs, accuracies = (
            sum(run[name] for run in runs) / len(runs) for name in ("mean_firing_rate", "acs", "test_accuracy")
        )
        rows.append([*key, str(len(runs)), f"{100 * rates:.1f} %", f"{acs / 1e6:.1f}", f"{100 * accuracies:.1f}"])
    return table(["network", "method", "added", "seeds", "firing rate", "million ACs an image", "test"], rows)


def points(found: dict[str, Any] | None, *, signed: bool = False) -> str:
    """Format the mean of an estimate, or of a difference, in percentage points."""
    if found is None:
        return ""
    return format(100 * found.get("estimate", found)["mean"], "+.2f" if signed else ".2f")


def steps_to_vanilla(group: dict[str, Any]) -> str:
    """By seed: the step that first reaches vanilla's final validation accuracy, over the step at which vanilla did."""
    if not group["times"]:
        return ""
    ratios = group["times"][-1]["steps_ratio_by_seed"].values()
    return ", ".join("never" if ratio is None else f"{ratio:.2f}" for ratio in ratios)


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "floor": floor,
    "against_peers-training": peers("training"),
    "against_peers-inference": peers("inference"),
    "branches": branches,
    "any_network": any_network,
    "memory": memory,
    "neuron": neuron,
    "growth": growth,
    "whole_job": whole_job,
    "startup": startup,
    "diagnosis": diagnosis,
}
OWN: dict[str, Callable[[], list[str]]] = {
    "logits": logits,
    "remedies": remedies,
    "dead_networks": dead_networks,
    "firing_rates": firing_rates,
}

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
