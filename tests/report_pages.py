"""Results of a small grid, for tests of the HTML page."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fss_bench import create_dataset
from fss_bench.leaderboard import Row, build_rows
from fss_bench.metrics import compute_metrics
from fss_bench.protocols import PROTOCOLS
from fss_bench.results import ResultStore, Run
from fss_bench.setting import create_setting

HOSTILE = '<script>alert("x")</script>'


def store_grid(root: Path, make_run: object) -> list[Row]:
    """Three methods on `shapes` at two shots, predictions of the first, and one of another set."""
    shapes, store = create_dataset("shapes"), ResultStore(root)
    for shots in (1, 5):
        for fold in range(4):
            setting = create_setting(shapes, "standard", fold=fold, shots=shots, episodes=10)
            for number, method in enumerate(("panet", "sgone", HOSTILE)):
                backbone = "resnet50" if number else "vgg16_panet"
                run = _run(make_run, setting, method, backbone, 0.3 + 0.2 * number)
                folder = _predictions(root, setting.specs, number) if not number else None
                store.write(run, folder)
    other = [
        make_run(  # type: ignore[operator]
            0.4,
            method="panet",
            fold=fold,
            run_id=f"other{fold}",
            dataset={"name": "pascal5i@3-abcdef"},
        )
        for fold in range(2)
    ]
    for run in other:
        store.write(run)
    return build_rows(store.runs())


def _run(make_run: object, setting: object, method: str, backbone: str, mean: float) -> Run:
    run: Run = make_run(  # type: ignore[operator]
        0.5,
        PROTOCOLS["standard"].replace_rules({"episodes": 10}),
        method=method,
        backbone=backbone,
        fold=setting.fold,
        shots=setting.shots,
        run_id=f"{method[:2].strip('<')}{setting.shots}{setting.fold}",
        episodes=10,
        episodes_sha256=setting.sha256,
        dataset={
            "name": "shapes",
            "folds": 4,
            "fingerprint": setting.dataset.index.fingerprint,
        },
    )
    rng = np.random.default_rng([setting.fold, setting.shots, len(method)])
    inter = (10000 * (mean + 0.1 * rng.normal(size=10)).clip(0, 1)).astype(int).tolist()
    counts = {"inter_fg": inter, "union_fg": 10000, "inter_bg": 30000, "union_bg": 40000}
    counts |= {"inter_ways": [[i] for i in inter], "union_ways": [[10000]] * 10}
    table = pd.DataFrame(
        {
            "index": range(10),
            "class_ids": [list(spec.classes) for spec in setting.specs],
            "query": [spec.query for spec in setting.specs],
            "supports": [[list(way) for way in spec.supports] for spec in setting.specs],
            **counts,
            **{f"{name}_255bg": values for name, values in counts.items()},
            "iou_fg": [i / 10000 for i in inter],
            "ms": 2.5,
        }
    )
    names = dict(setting.dataset.class_names)
    if method == HOSTILE:
        names[setting.classes[0]] = HOSTILE
    metrics = compute_metrics(table, names, setting.classes)
    run.record["cost"] = {**run.record["cost"], "ms_per_episode": 10.0 * (1 + len(method) % 7)}
    return Run(run.record, metrics, table)


def _predictions(root: Path, specs: object, number: int) -> Path:
    folder = root / "made" / str(number)
    folder.mkdir(parents=True)
    for spec in specs:
        labels = np.zeros((128, 128), np.uint8)
        labels[32:96, 32:96] = 1
        Image.fromarray(labels).save(folder / f"{spec.index}.png")
    return folder
