#!/usr/bin/env python3
"""Print the tables of docs/ from the JSON files of evaluations.

    scripts/tables.py ablations runs/ablations
    scripts/tables.py solvers RUN/solvers
"""

import json
import statistics
import sys
from pathlib import Path


def measure(report, name):
    return next(m["value"] for m in report["measures"]["samples"] if m["name"] == name)


def estimate(values, form=".2f"):
    """Mean and its standard error, where there is one."""
    values = list(values)
    text = format(statistics.mean(values), form)
    return f"{text} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else text


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def against(values, base):
    """Difference to the base, paired by seed."""
    if values is base:
        return ""
    differences = [values[seed] - base[seed] for seed in values if seed in base]
    return estimate(differences, "+.2f")


def ablations(folder):
    """Means over seeds, and differences to `base`."""
    nelbo, gain, frechet = {}, {}, {}
    for path in sorted(folder.glob("*-[0-9]*/evaluation.json")):
        name, seed = path.parent.name.rsplit("-", 1)
        report = json.loads(path.read_text())
        nelbo.setdefault(name, {})[seed] = report["nelbo"]["mean"]
        gain.setdefault(name, {})[seed] = report["gain"]["mean"]
        samples = path.with_name("samples.json")
        if samples.exists():
            frechet.setdefault(name, {})[seed] = measure(json.loads(samples.read_text()), "frechet_distance")
    header = ["variant", "seeds", "`nelbo`", "against base", "`gain`"]
    header += ["`frechet_distance`", "against base"] if frechet else []
    row(*header)
    row("---", *["---:"] * (len(header) - 1))
    for name in sorted(nelbo, key=lambda n: (n != "base", n)):
        cells = [name, str(len(nelbo[name])), estimate(nelbo[name].values()), against(nelbo[name], nelbo["base"])]
        cells.append(estimate(gain[name].values()))
        if name in frechet:
            cells += [estimate(frechet[name].values()), against(frechet[name], frechet["base"])]
        row(*cells, *[""] * (len(header) - len(cells)))


def solvers(folder):
    """One row for each solver; quality against the tightest RK45."""
    reports = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    reference = measure(reports["rk45 1e-5"], "frechet_distance")
    row("solver", "NFE", "seconds", "`frechet_distance`", "against RK45", "precision", "recall", "density", "coverage")
    row("---", *["---:"] * 8)
    for name, report in sorted(reports.items(), key=lambda item: item[0]):
        sampling = report["measures"]["sampling"]
        nfe, seconds = sampling.split(": ")[1].split(" NFE, ")
        distance = measure(report, "frechet_distance")
        shares = [f"{measure(report, m):.3f}" for m in ("precision", "recall", "density", "coverage")]
        change = f"{100 * (distance / reference - 1):+.1f} %"
        row(name, nfe, seconds.removesuffix(" s"), f"{distance:.3f}", change, *shares)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("ablations", "solvers"):
        sys.exit(__doc__)
    {"ablations": ablations, "solvers": solvers}[sys.argv[1]](Path(sys.argv[2]))
