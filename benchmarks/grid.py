"""A small leaderboard: five methods, two shots, all folds, on three datasets. For results/grid.

    python benchmarks/grid.py --voc ../VOC2012 --coco ../COCO

Trains all but PANet, minutes of one CPU core each, evaluates, and writes results/grid: the runs
without predictions, leaderboard.csv and report.html, whose pictures are of `shapes` alone. Can be
interrupted; the same command goes on.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from training import ADAM, BALANCED, EVEN, WHOLE, Study, run, train_words, trained_folder

ROOT = Path(__file__).parents[1]
GRID = ROOT / "results" / "grid"
EPISODES = 100
SHOTS = "1,5"
KEPT = ("run.json", "episodes.parquet")
COFCN = f"{EVEN} --recipe foreground_weight=10"
BASE = f"{ADAM} --lr 0.001 --recipe rates=backbone.*:0.1 --recipe crop=128"
META = f"{ADAM} --lr 0.001 {BALANCED}"


def studies(dataset: str) -> Iterator[Study]:
    """The methods on a dataset: half the steps of the training study."""
    yield Study(dataset, "panet", 128 if dataset == "shapes" else 256, {})
    yield Study(dataset, "sgone", 128, {"": f"{EVEN} {BALANCED} --steps 100"})
    yield Study(dataset, "cofcn", 128, {"": f"{COFCN} --steps 110"}, "--option fusion=late")
    yield Study(dataset, "dcama", 128, {"": f"{WHOLE} {BALANCED} --steps 70"})
    stages = {"base": f"{BASE} --steps 60", "meta": f"{META} --steps 110"}
    yield Study(dataset, "msanet", 128, stages)


def work(study: Study, a: argparse.Namespace) -> None:
    """Train and evaluate; what is finished is not repeated."""
    roots = {"pascal5i": a.voc, "coco20i": a.coco}
    root = ["--data-root", roots[study.dataset]] if study.dataset in roots else []
    data = [*root, "--workers", 0, "--quiet"]
    weights = ["--weights", "packaged"]
    for stage, arguments in study.stages.items():
        folder = trained_folder(study, 0, a.runs)
        run([*train_words(study, stage, arguments), *data, "--output", folder])
        weights = ["--checkpoint", folder / "fold{fold}.safetensors"]
    test = ["evaluate", study.method, "--dataset", study.dataset, *study.shared, *weights]
    pictures = ["--save-predictions"] if study.dataset == "shapes" else []
    setting = ["--shots", SHOTS, "--episodes", a.episodes, *pictures]
    run([*test, *data, *setting, "--output", results_of(study.dataset, a)])


def results_of(dataset: str, a: argparse.Namespace) -> Path:
    """Where a dataset's runs are written: apart, as commands may run beside one another."""
    return Path(a.runs) / f"results-{dataset}"


def publish(a: argparse.Namespace) -> None:
    """Gather the runs, then the table and the page of them."""
    whole = Path(a.runs) / "results"
    shutil.rmtree(GRID / "runs", ignore_errors=True)
    for dataset in a.datasets:
        for file in sorted((results_of(dataset, a) / "runs").rglob("run.json")):
            place = file.parent.relative_to(results_of(dataset, a))
            shutil.copytree(file.parent, whole / place, dirs_exist_ok=True)
            record = file.read_text(encoding="utf-8")  # names no folder of the machine it ran on
            record = record.replace(f"{Path(a.runs).resolve().parent.as_posix()}/", "")
            (whole / place / "run.json").write_text(record, encoding="utf-8")
            (GRID / place).mkdir(parents=True)
            for name in KEPT:
                shutil.copy(whole / place / name, GRID / place / name)
    board(GRID, "csv", GRID / "leaderboard.csv")
    board(whole, "html", GRID / "report.html")


def board(results: Path, form: str, file: Path) -> None:
    """`fss-bench leaderboard` of these runs."""
    words = ["leaderboard", "--results", results, "--format", form, "-o", file]
    command = [sys.executable, "-m", "fss_bench", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Read the arguments, work, publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voc", type=Path, help="VOC 2012 or a part of it")
    parser.add_argument("--coco", type=Path, help="COCO or a part of it")
    parser.add_argument("--runs", type=Path, default=Path("grid-runs"))
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--jobs", type=int, default=1)
    a = parser.parse_args()
    given = {"shapes": True, "pascal5i": a.voc, "coco20i": a.coco}
    a.datasets = [name for name, root in given.items() if root]
    todo = [study for name in a.datasets for study in studies(name)]
    with ThreadPoolExecutor(a.jobs) as pool:
        list(pool.map(lambda study: work(study, a), todo))
    publish(a)


if __name__ == "__main__":
    main()
