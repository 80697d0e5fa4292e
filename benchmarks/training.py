"""Does training lift scores on novel classes? For docs/trained-scores.md.

    python benchmarks/training.py --voc ../VOC2012

Trains every method of `STUDIES` on the base classes of all four folds, about ten minutes of one CPU
core a method on shapes, then evaluates it, and its start, on the novel classes. Writes
results/training.csv and the tables of docs/trained-scores.md. Can be interrupted; the same command
goes on. One thread a process, so that figures do not depend on the number of `--jobs`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tables import Row, difference, percent, write_page, write_rows

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "training.csv"
PAGE = ROOT / "docs" / "trained-scores.md"
BACKBONE = "--backbone tf_efficientnet_lite0"
ADAM = (
    "--batch-size 4 --recipe optimiser=adamw --recipe weight_decay=0.01 "
    "--recipe schedule=cosine --recipe warmup=20 --recipe clip=1"
)
WHOLE = f"{ADAM} --recipe train_backbone=true --lr 0.001 --recipe rates=backbone.*:0.3"
EVEN = f"{ADAM} --lr 0.0003 --recipe rates=*:1"
BALANCED = "--recipe foreground_weight=4"
VALIDATIONS = 3
"""After the one of the start."""
COLUMNS = (
    "dataset,method,input_size,weights,seed,steps,minutes,episodes,fold0,fold1,fold2,fold3,miou,ci_low,ci_high,"
    "minus_untrained,minus_untrained_low,minus_untrained_high,p_untrained,chosen_on_test"
).split(",")
"""Percent and points; core minutes of the four folds; p-values with Holm's correction."""


@dataclass(frozen=True)
class Study:
    """A method on a dataset.

    Attributes:
        dataset, method: by their registered names.
        size: input side, px.
        stages: stage -> arguments of `fss-bench train`; their `--steps` are what it may cost.
        options: further arguments of `train` and `evaluate` alike.
        seeds: of the training.
        every_step: whether every checkpoint is evaluated, to say what choosing on the test
            episodes would give.
    """

    dataset: str
    method: str
    size: int
    stages: dict[str, str] = field(hash=False)
    options: str = ""
    seeds: tuple[int, ...] = (0,)
    every_step: bool = False

    @property
    def shared(self) -> list[str]:
        """Arguments of `train` and `evaluate` alike."""
        return shlex.split(f"{BACKBONE} --option input_size={self.size} {self.options}")


def _only(arguments: str) -> dict[str, str]:
    return {"": arguments}


PANET = f"{ADAM} --lr 0.0001"
STUDIES = (
    Study("shapes", "panet", 128, _only(f"{PANET} --steps 400")),
    Study("shapes", "sgone", 128, _only(f"{EVEN} {BALANCED} --steps 200")),
    Study(
        "shapes",
        "cofcn",
        128,
        _only(f"{EVEN} --recipe foreground_weight=10 --steps 220"),
        "--option fusion=late",
    ),
    Study("shapes", "dcama", 128, _only(f"{WHOLE} {BALANCED} --steps 130")),
    Study(
        "shapes",
        "msanet",
        128,
        {
            "base": f"{ADAM} --lr 0.001 --recipe rates=backbone.*:0.1 --recipe crop=128 "
            "--steps 120",
            "meta": f"{ADAM} --lr 0.001 {BALANCED} --steps 220",
        },
    ),
    Study("pascal5i", "panet", 256, _only(f"{PANET} --steps 160"), every_step=True),
    Study("pascal5i", "dcama", 192, _only(f"{WHOLE} {BALANCED} --steps 120")),
)


def run(words: Sequence[object]) -> None:
    """A command of fss-bench on one thread."""
    command = [sys.executable, "-m", "fss_bench", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def work(study: Study, seed: int, a: argparse.Namespace) -> None:
    """Train and evaluate; what is finished is not repeated."""
    data = ["--dataset", study.dataset, "--workers", 0, "--quiet"]
    data += ["--data-root", a.voc] if study.dataset == "pascal5i" else []
    for stage, arguments in study.stages.items():
        run(
            [
                *train_words(study, stage, arguments),
                *("--seed", seed, *data[2:], "--output", trained_folder(study, seed, a.runs)),
            ]
        )
    test = ["evaluate", study.method, *data, *study.shared, "--episodes", a.episodes]
    if seed == study.seeds[0]:
        run([*test, "--weights", "packaged", "--output", a.runs / "untrained"])
    folder = trained_folder(study, seed, a.runs)
    file = folder / "fold{fold}.safetensors"
    run([*test, "--checkpoint", file, "--output", a.runs / f"trained-{seed}"])
    for step in checkpoints(study):
        file = folder / "fold{fold}" / "checkpoints" / f"step-{step:08d}.safetensors"
        run([*test, "--checkpoint", file, "--output", a.runs / f"step-{step}-{seed}"])


def train_words(study: Study, stage: str, arguments: str) -> list[str]:
    """The command that trains a stage, but for where data are read and weights are written."""
    every = -(-steps_of(arguments) // VALIDATIONS)
    words = f"train {study.method} --dataset {study.dataset} --weights packaged {arguments}"
    named = ["--stage", stage] if stage else []
    checks = ["--validate-every", str(every), "--keep", str(VALIDATIONS)]
    return [*shlex.split(words), *named, *study.shared, *checks]


def steps_of(arguments: str) -> int:
    """The `--steps` of a stage."""
    words = shlex.split(arguments)
    return int(words[words.index("--steps") + 1])


def checkpoints(study: Study) -> list[int]:
    """Steps whose checkpoints are all evaluated; none where that is not wanted."""
    steps = steps_of([*study.stages.values()][-1])
    every = -(-steps // VALIDATIONS)
    return [*range(every, steps, every), steps] if study.every_step else []


def trained_folder(study: Study, seed: int, runs: Path) -> Path:
    """Where training writes."""
    return runs / f"{study.dataset}-{study.method}-seed{seed}"


def publish(a: argparse.Namespace) -> None:
    """The table and the page from the runs."""
    rows = list(measure(a.runs))
    write_rows(TABLE, COLUMNS, rows)
    write_page(PAGE, tables(rows))


def measure(runs: Path) -> Iterator[Row]:
    """A row a method before its training and a row a seed after it."""
    from fss_bench.comparison import compare_folds
    from fss_bench.statistics import holm

    before = {study: runs_of(study, runs / "untrained") for study in STUDIES}
    after = {
        (study, seed): runs_of(study, runs / f"trained-{seed}")
        for study in STUDIES
        for seed in study.seeds
    }
    tested = {
        key: compare_folds(before[key[0]], found, p_value=True) for key, found in after.items()
    }
    corrected = dict(zip(tested, holm([d.p or 0.0 for d in tested.values()]), strict=True))
    for study in STUDIES:
        yield row_of(study, before[study], {"weights": "untrained"})
        for seed in study.seeds:
            low, high = tested[study, seed].ci95
            change = tested[study, seed].second - tested[study, seed].first
            steps, seconds = effort(study, seed, runs)
            yield row_of(
                study,
                after[study, seed],
                {
                    "weights": "trained",
                    "seed": str(seed),
                    "steps": str(steps),
                    "minutes": f"{seconds / 60:.1f}",
                    "minus_untrained": percent(change),
                    "minus_untrained_low": percent(low),
                    "minus_untrained_high": percent(high),
                    "p_untrained": f"{corrected[study, seed]:.4f}",
                    "chosen_on_test": chosen_on_test(study, seed, runs),
                },
            )


def runs_of(study: Study, folder: Path) -> list[Any]:
    """The runs of a study in a results folder, in the order of their folds."""
    from fss_bench.results import ResultStore

    def fits(record: dict[str, Any]) -> bool:
        dataset = record["dataset"]["name"].partition("@")[0]  # whatever part of it
        return (dataset, record["method"]) == (study.dataset, study.method)

    found = [run for run in ResultStore(folder).runs() if fits(run.record)]
    return sorted(found, key=lambda run: int(run.record["fold"]))


def effort(study: Study, seed: int, runs: Path) -> tuple[int, float]:
    """Steps of a fold's stages, and the seconds of all folds, from the logs."""
    folder, steps, seconds = trained_folder(study, seed, runs), 0, 0.0
    for log in sorted(folder.glob("fold*/log.jsonl")):
        last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        seconds += float(last["seconds"])
        steps += int(last["step"]) if log.parent.name.startswith("fold0") else 0
    return steps, seconds


def chosen_on_test(study: Study, seed: int, runs: Path) -> str:
    """What the table would say if each fold's checkpoint were the best on the test episodes."""
    steps = [runs_of(study, runs / f"step-{step}-{seed}") for step in checkpoints(study)]
    if not steps:
        return ""
    folds = zip(*steps, strict=True)
    best = [max(run.metrics.miou for run in fold) for fold in folds]
    return percent(sum(best) / len(best))


def row_of(study: Study, runs: Sequence[Any], values: Row) -> Row:
    """A row of the table."""
    from fss_bench.metrics import class_counts
    from fss_bench.statistics import bootstrap_mean_iou

    low, high = bootstrap_mean_iou([class_counts(run.episodes) for run in runs])
    folds = [run.metrics.miou for run in runs]
    return {
        **dict.fromkeys(COLUMNS, ""),
        **values,
        "dataset": str(runs[0].record["dataset"]["name"]),
        "method": study.method,
        "input_size": str(study.size),
        "episodes": str(sum(len(run.episodes) for run in runs)),
        **{f"fold{i}": percent(value) for i, value in enumerate(folds)},
        "miou": percent(sum(folds) / len(folds)),
        "ci_low": percent(low),
        "ci_high": percent(high),
    }


def tables(rows: Sequence[Row]) -> str:
    """The part of docs/trained-scores.md from its first table on."""
    found = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset]
        found.append(f"## {dataset}\n\n{table(own)}\n")
    return "\n".join([*found, commands()])


def table(rows: Sequence[Row]) -> str:
    """A row a trained method."""
    lines = [
        "| method, px | untrained | trained | difference | steps | minutes |",
        "|---" * 6 + "|",
    ]
    before = {row["method"]: row for row in rows if row["weights"] == "untrained"}
    for row in (row for row in rows if row["weights"] == "trained"):
        old = before[row["method"]]
        scores = [f"{r['miou']} ({r['ci_low']} to {r['ci_high']})" for r in (old, row)]
        seed = f", seed {row['seed']}" if row["seed"] != "0" else ""
        lines.append(
            f"| {row['method']}, {row['input_size']}{seed} | {' | '.join(scores)} | "
            f"{difference(row, 'untrained')} | {row['steps']} | {row['minutes']} |"
        )
    lines += [
        f"\nHad each fold's checkpoint of {row['method']} been chosen on the test episodes, as is "
        f"common: {row['chosen_on_test']} instead of {row['miou']}."
        for row in rows
        if row["chosen_on_test"]
    ]
    return "\n".join(lines)


def commands() -> str:
    """What trained each."""
    lines = [
        shlex.join(["fss-bench", *train_words(study, stage, arguments)])
        for study in STUDIES
        for stage, arguments in study.stages.items()
    ]
    return "## Commands\n\n```text\n" + "\n".join(lines) + "\n```\n"


def main() -> None:
    """Train and evaluate, then write what is published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voc", type=Path, required=True, help="a VOC 2012 tree")
    parser.add_argument("--episodes", type=int, default=500, help="of a fold")
    parser.add_argument("--runs", type=Path, default=Path("training-runs"))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", default="", help="a method; publishes nothing")
    a = parser.parse_args()
    wanted = [(s, seed) for s in STUDIES for seed in s.seeds if a.only in ("", s.method)]
    with ThreadPoolExecutor(a.jobs) as pool:
        for done in [pool.submit(work, study, seed, a) for study, seed in wanted]:
            done.result()
    if not a.only:
        publish(a)


if __name__ == "__main__":
    main()
