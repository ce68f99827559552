"""Time and memory of lsgm's operations against PyTorch's, on this machine's CPU: writes benches/RESULTS.md. With `--device
cuda`, on its GPU (bf16 on both sides, PyTorch channels-last): benches/RESULTS-GPU.md, with `--compile` RESULTS-GPU-compiled.md.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy scipy
    /tmp/torch/bin/python benches/compare/compare.py

Both sides stay alive and answer one measurement a request, in turn, so that whatever else the machine does meets both
alike; a cell is the median over all rounds. Rows may be measured apart (`--rows TEXT`): the measurements are kept in a
file, and the table names those that are missing. Only the standard library is used here.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Side:
    """A process that measures rows."""

    def __init__(self, command, arguments):
        number = str(arguments.threads)
        settings = {
            "RAYON_NUM_THREADS": number,
            "OMP_NUM_THREADS": number,
            # What the lsgm binary sets itself.
            "CANDLE_BARRIER_POOL_SPIN_LIMIT": "0",
            "MIMALLOC_PURGE_DELAY": "-1",
            "LSGM_COMPARE_DEVICE": arguments.device,
            "LSGM_COMPARE_COMPILE": str(int(arguments.compile)),
        }
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | settings
        )

    def ask(self, row, what, seconds=0.0):
        request = json.dumps({"row": row, "what": what, "seconds": seconds})
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"a side ended at row {row['name']}")
        answer = json.loads(answer)
        if "error" in answer:
            sys.exit(f"row {row['name']}: {answer['error']}")
        return answer["value"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def build(device):
    """Build the Rust side and return its path."""
    cargo = os.environ.get("CARGO", "cargo")
    features = [] if device == "cpu" else ["--features", "cuda,cudnn"]
    command = [cargo, "bench", "--bench", "compare", "--no-run", "--message-format=json", *features]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    paths = [m["executable"] for m in messages if m.get("target", {}).get("name") == "compare" and m.get("executable")]
    return paths[-1]


def measure_times(rows, sides, round_number, seconds, times):
    """One round: for each row the (PyTorch, lsgm) milliseconds are added to `times`."""
    for row in rows:
        # Who goes first changes from round to round.
        order = [0, 1] if round_number % 2 == 0 else [1, 0]
        pair = [0.0, 0.0]
        for side in order:
            pair[side] = sides[side].ask(row, "time", seconds)
        times[row["name"]].append(pair)


def measure_memory(rows, commands, arguments):
    """For each row the (PyTorch, lsgm) MiB, each in a process of its own."""
    result = {}
    for row in rows:
        pair = []
        for command in commands:
            side = Side(command, arguments)
            pair.append(side.ask(row, "memory"))
            side.close()
        result[row["name"]] = pair
    return result


def version(command):
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu():
    """Model and instruction set of the CPU."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    best = next((name for flag, name in [("avx512f", "AVX-512"), ("avx2", "AVX2")] if flag in flags), "no AVX2")
    numbers = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    return f"{fields.get('model name', 'unknown')} ({numbers}, {best})"


def gpu():
    """Name and driver of the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return version(query).splitlines()[0]


def machine(python, device):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    torch = version([python, "-c", "import torch; print(torch.__version__)"])
    candle = next(
        line.split('"')[1].lstrip("=") for line in (ROOT / "Cargo.toml").read_text().splitlines() if "candle-core" in line
    )
    return [
        *([] if device == "cpu" else [f"* GPU: {gpu()}"]),
        f"* CPU: {cpu()}, {os.cpu_count()} cores; {memory:.0f} GiB of memory; {platform.system()}",
        f"* PyTorch {torch} (wheel from PyPI), Python {platform.python_version()}",
        f"* lsgm at `{version(['git', 'rev-parse', '--short', 'HEAD'])}`, candle {candle}, {version(['rustc', '--version'])}",
    ]


def table(rows, measured):
    lines = [
        "| forward and backward | PyTorch ms | lsgm ms | lsgm / PyTorch | in rounds | goal | PyTorch MiB | lsgm MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    missed, notes = [], []
    for row in rows:
        pairs, memory = measured[row["name"]]["times"], measured[row["name"]]["memory"]
        theirs, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratios = sorted(pair[1] / pair[0] for pair in pairs)
        ratio = ours / theirs
        sizes = [f"{mib:.0f}" for mib in memory] or ["–", "–"]
        lines.append(
            f"| {row['name']} | {theirs:.2f} | {ours:.2f} | **{ratio:.2f}** | {ratios[0]:.2f} – {ratios[-1]:.2f} "
            f"| {row['goal']:.1f} | {sizes[0]} | {sizes[1]} |"
        )
        if ratio > row["goal"]:
            missed.append(f"* {row['name']}: {ratio:.2f} where {row['goal']:.1f} is wanted. {row.get('note', '')}".rstrip())
        if memory and "memory_goal" in row:
            goal, share = row["memory_goal"], memory[1] / memory[0]
            notes.append(
                f"* {row['name']}: {memory[1]:.0f} MiB where {goal} are wanted, half of the 3.9 GB that PyTorch took when the "
                f"goal was set; {share:.2f} of what PyTorch took in this comparison."
            )
            if memory[1] > goal:
                missed.append(f"* {row['name']}: {memory[1]:.0f} MiB where {goal} are wanted.")
        if memory and "memory_share" in row:
            goal, share = row["memory_share"], memory[1] / memory[0]
            notes.append(f"* {row['name']}: {share:.2f} of what PyTorch's tensors took, where {goal:.1f} is wanted.")
            if share > goal:
                missed.append(f"* {row['name']}: {share:.2f} of PyTorch's memory where {goal:.1f} is wanted.")
    memory = ["", "## Memory", "", *notes] if notes else []
    return lines + memory + ["", "## Rows above their goal", "", *(missed or ["None."])]


def gpu_state():
    """Whether there are measurements of a GPU."""
    return "not measured" if "Not measured" in (ROOT / "benches" / "RESULTS-GPU.md").read_text() else "measured there"


def mode(arguments):
    """What both sides compute with, and what their memory is."""
    if arguments.device == "cpu":
        return [
            "Memory is the peak above that of the idle process, in a process of its own. The threads of both sides stay awake between",
            "operations: PyTorch's do so by themselves, lsgm's while an `Awake` lives.",
            f"What a GPU does is in `RESULTS-GPU.md`: {gpu_state()}.",
        ]
    compiled = "`torch.compile`" if arguments.compile else "eager"
    return [
        f"PyTorch: {compiled}, channels-last, autocast to bf16 around the whole step, optimizers of the steps as they come; lsgm:",
        "`precision = \"bf16\"`. Sampling is in TF32 on both sides. Memory is the most that tensors held, in a process of its own. The",
        "goal of `configs/mnist.toml` (a test NELBO of at most 81.5 nats after 25 minutes on an H200) is for `lsgm train`.",
    ]


def report(rows, measured, description, arguments):
    dates = sorted({measured[row["name"]]["date"] for row in rows})
    rounds = min(len(measured[row["name"]]["times"]) for row in rows)
    return [
        f"# lsgm against PyTorch on the {'CPU' if arguments.device == 'cpu' else 'GPU'}",
        "",
        "Written by `python benches/compare/compare.py`; `benches/compare/rows.json` has the shapes, `networks.py` the networks",
        f"of the last rows. Times are medians of {rounds} rounds or more that both sides take in turn; the ratio is that of the",
        "medians, and the column after it has the smallest and the largest of the rounds' ratios: the noise of this machine.",
        *mode(arguments),
        "",
        *description,
        f"* both sides on {arguments.threads} threads; measured on {' and '.join(dates)}",
        "",
        *table(rows, measured),
    ]


def rows_for(device):
    """The rows of a device: on a GPU with what stands under `gpu` in the place of what stands beside it."""
    rows = json.loads((HERE / "rows.json").read_text())
    if device == "cpu":
        return [row for row in rows if not row.get("gpu_alone")]
    # Goals for memory that are numbers are the CPU's.
    return [{key: row[key] for key in row if key not in ("gpu", "memory_goal")} | row.get("gpu", {}) for row in rows]


def wants_memory(row, device):
    """On a GPU a process of its own takes long to start: there only for rows whose memory has a goal."""
    return device == "cpu" or "memory_share" in row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.4, help="least time of one measurement")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile on PyTorch's side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", default="", help="only rows whose name this regular expression finds")
    parser.add_argument("--no-times", action="store_true", help="measure memory only")
    parser.add_argument("--no-memory", action="store_true", help="measure times only")
    parser.add_argument("--python", default=sys.executable, help="the Python that has PyTorch")
    parser.add_argument("--rust", help="the built Rust side; cargo builds it otherwise")
    parser.add_argument("--remark", default="", help="a sentence about this measurement, for the table's head")
    parser.add_argument("--store", type=Path, help="where measurements are kept [target/compare.json]")
    parser.add_argument("--out", type=Path, help="[benches/RESULTS.md]")
    arguments = parser.parse_args()
    kind = {"cpu": "", "cuda": "-GPU"}[arguments.device] + ("-compiled" if arguments.compile else "")
    arguments.store = arguments.store or ROOT / "target" / f"compare{kind}.json"
    arguments.out = arguments.out or ROOT / "benches" / f"RESULTS{kind}.md"

    all_rows = rows_for(arguments.device)
    rows = [row for row in all_rows if re.search(arguments.rows, row["name"])]
    commands = [[arguments.python, str(HERE / "pytorch.py")], [arguments.rust or build(arguments.device)]]
    measured = json.loads(arguments.store.read_text()) if arguments.store.exists() else {}
    entries = [measured.setdefault(row["name"], {"times": [], "memory": []}) for row in rows]
    if not arguments.no_times:
        sides = [Side(command, arguments) for command in commands]
        times = {row["name"]: [] for row in rows}
        for i in range(arguments.rounds):
            print(f"round {i + 1} of {arguments.rounds}", file=sys.stderr)
            measure_times(rows, sides, i, arguments.seconds, times)
            for row, entry in zip(rows, entries):
                entry |= {"times": times[row["name"]], "date": str(date.today())}
            write(all_rows, measured, arguments)
        for side in sides:
            side.close()
    if not arguments.no_memory:
        memory = measure_memory([row for row in rows if wants_memory(row, arguments.device)], commands, arguments)
        for row, entry in zip(rows, entries):
            entry["memory"] = memory.get(row["name"], [])
    write(all_rows, measured, arguments)
    print("\n".join(table(rows, measured)))


def write(all_rows, measured, arguments):
    """Keep the measurements, and write the table of all that there are."""
    arguments.store.parent.mkdir(exist_ok=True)
    arguments.store.write_text(json.dumps(measured))
    missing = [row["name"] for row in all_rows if not measured.get(row["name"], {}).get("times")]
    rows = [row for row in all_rows if row["name"] not in missing]
    remark = [f"* {arguments.remark}"] if arguments.remark else []
    lines = report(rows, measured, machine(arguments.python, arguments.device) + remark, arguments)
    if missing:
        lines += ["", "## Rows not measured yet", "", *(f"* {name}" for name in missing)]
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
