"""Our evaluation against a straightforward loop, in one run on one machine. For docs/speed.md.

    python benchmarks/speed.py                    # all: hours on two cores
    python benchmarks/speed.py --only dcama-5     # one row; the others stay as they were

The setting is a real-size fold: 5 classes of 70 images of 500 x 375 px with objects of all sizes
(made here; the pixels are noise, which costs what photographs cost), 1,000 episodes. The loop
(straightforward.py) does for every episode what published codes do; its episodes cost the same
each, so some are measured. Loading is left out of its time, as published codes load ahead. Ours is
the whole of `evaluate`, loading and scoring included, either over all 1,000 episodes, or over some,
and then the 1,000 cost what their distinct images and episodes cost each (the table of growth shows
that this is so). Loop and ours take turns. Weights are random: they change no time.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from straightforward import Loop, straightforward
from tables import Row, read_rows, write_page, write_rows

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "speed.csv"
PAGE = ROOT / "docs" / "speed.md"
GROWTH_TABLE = ROOT / "results" / "speed_growth.csv"
GROWTH = (250, 1000, 4000)
GROWTH_COLUMNS = "episodes,images,encoded,seconds,image_ms,episode_ms,expected,peak_mb".split(",")
EPISODES = 1000
CLASSES, PER_CLASS, SIZE = 5, 70, (375, 500)
ROUNDS = 3
COLUMNS = (
    "method,backbone,input_size,shots,device,threads,torch,images,loop_episodes,loop_ms,loop_ms_low,"
    "loop_ms_high,our_episodes,our_images,image_ms,episode_ms,ours_s,loop_s,ratio,ratio_low,ratio_high,"
    "limit_s,limit_share,peak_mb,largest_difference,pixels_that_differ"
).split(",")
"""Milliseconds of one of the loop's episodes; of ours, of an image (all that is done once for it)
and of an episode; seconds of 1,000 episodes; ratios of these, over the rounds; the seconds that all
of our FLOPs take at the machine's rate, and that over ours; how far the logits of loop and ours are
apart at most, over their range, and pixels of a million whose answer differs."""


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        method, backbone: at their published input size.
        shots: K.
        episodes: how many of ours are measured in each round; all 1,000 are one round.
        loop: how many of the loop's in each round.
    """

    method: str
    backbone: str
    shots: int
    episodes: int
    loop: int

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.method}-{self.shots}"


CASES = (
    Case("panet", "vgg16_panet", 1, EPISODES, 6),
    Case("panet", "vgg16_panet", 5, EPISODES, 2),
    Case("sgone", "vgg16_sgone", 1, EPISODES, 6),
    Case("sgone", "vgg16_sgone", 5, EPISODES, 2),
    Case("dcama", "resnet50", 1, 40, 6),
    Case("dcama", "resnet50", 5, 20, 2),
    Case("hsnet", "resnet50", 1, 40, 4),
    Case("hsnet", "resnet50", 5, 15, 1),
    Case("msanet", "resnet50_deepstem", 1, 30, 4),
    Case("msanet", "resnet50_deepstem", 5, 15, 1),
)


def make_fold(folder: Path) -> None:
    """A dataset of 5 classes: an ellipse of 2 to 50 percent of each image."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    names = [f"class{c}" for c in range(1, CLASSES + 1)]
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    quoted = ", ".join(f'"{name}"' for name in names)
    (folder / "folds.toml").write_text(f"folds = [[{quoted}]]\n", encoding="utf-8")
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for number in range(CLASSES * PER_CLASS):
        noise = rng.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{number:03d}.jpg", quality=90)
        area = rng.uniform(0.02, 0.5) * SIZE[0] * SIZE[1]
        slim = rng.uniform(0.5, 2.0)
        high, wide = np.sqrt(area / np.pi * slim), np.sqrt(area / np.pi / slim)
        y, x = rng.uniform(0.3, 0.7, 2) * SIZE
        inside = ((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2 <= 1
        mask = inside * np.uint8(1 + number % CLASSES)
        Image.fromarray(mask).save(folder / "masks" / f"{number:03d}.png")


def liven(method: torch.nn.Module) -> None:
    """Random weights under which answers differ from pixel to pixel, where they are comparable."""
    torch.manual_seed(0)
    for module in method.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)


class Bench:
    """A case, ready to be measured."""

    def __init__(self, case: Case, folder: Path) -> None:
        from fss_bench import create_backbone, create_dataset, create_method
        from fss_bench.compute import Compute
        from fss_bench.setting import create_setting

        self.case = case
        self.dataset = create_dataset("folder", folder)
        self.setting = create_setting(self.dataset, shots=case.shots, episodes=EPISODES)
        backbone = create_backbone(case.backbone, "none")
        self.method: Any = create_method(case.method, backbone)
        liven(self.method)
        self.side: int = self.method.input_size
        self.compute = Compute("cpu", workers=1)
        self.loop: Loop = straightforward(self.method)

    def episode(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]:
        """Supports, masks and query of an episode, and the episode."""
        from fss_bench.loading import EpisodeLoader

        loader = EpisodeLoader(self.dataset, self.setting.protocol, [], self.side)
        found = loader.episode(self.setting.specs[number])
        masks = (found.support_masks[0] == 1).float()
        return found.support_images[0], masks, found.query_image[None], found

    def loop_ms(self, first: int) -> list[float]:
        """Milliseconds of some of the loop's episodes."""
        spent = []
        for number in range(first, first + self.case.loop):
            *episode, _ = self.episode(number)
            start = time.perf_counter()
            with torch.no_grad():
                logits = self.loop(*episode)
                logits.argmax(dim=1)
            spent.append(1000 * (time.perf_counter() - start))
        return spent

    def ours(self, first: int) -> Any:
        """The profile of an evaluation of some of our episodes."""
        from fss_bench.profiling import profile

        whole = self.setting
        specs = whole.specs[first : first + self.case.episodes]
        return profile(self.method, replace(whole, specs=specs), self.compute)

    def differences(self) -> tuple[float, float]:
        """Largest difference of logits, and pixels of a million whose answer is another."""
        *episode, found = self.episode(0)
        with torch.no_grad():
            loop = self.loop(*episode)
            ours = self.method(
                found.support_images[None], found.support_masks[None], found.query_image[None]
            )
        size = (self.side, self.side)
        if loop.shape != ours.shape:
            ours = torch.nn.functional.interpolate(ours, size, mode="bilinear")
        apart = loop.argmax(dim=1) != ours.argmax(dim=1)
        if self.case.method == "hsnet" and self.case.shots > 1:  # a vote has no logits
            return float("nan"), 1e6 * float(apart.float().mean())
        largest = float((loop - ours).abs().max() / (loop.max() - loop.min()))
        return largest, 1e6 * float(apart.float().mean())


def counts_of(specs: Sequence[Any]) -> dict[str, int]:
    """How often what is done once for an image, a query, a support and an episode must be done."""
    return {
        "image": len({image for spec in specs for image in spec.images}),
        "query": len({spec.query for spec in specs}),
        "support": len({(image, spec.classes) for spec in specs for image in spec.supports[0]}),
        "episode": len(specs),
    }


def costs_of(found: Any) -> dict[str, float]:
    """Seconds of each; an episode bears all that is not spent on the others."""
    spent = sum(seconds for _, seconds in found.made.values())
    each = {what: seconds / max(1, count) for what, (count, seconds) in found.made.items()}
    return {**each, "episode": (found.wall - spent) / found.episodes}


def measure(case: Case, folder: Path) -> Row:
    """A row of the table."""
    bench = Bench(case, folder)
    largest, apart = bench.differences()
    bench.loop_ms(EPISODES - case.loop)  # warm up
    loops, ours = [], []
    for turn in range(1 if case.episodes == EPISODES else ROUNDS):
        loops.append(statistics.median(bench.loop_ms(turn * case.loop)))
        ours.append(bench.ours(turn * case.episodes))
        loops.append(statistics.median(bench.loop_ms((turn + 1) * case.loop)))
    costs = [costs_of(found) for found in ours]
    counts = counts_of(bench.setting.specs)
    if case.episodes == EPISODES:
        seconds = [found.wall for found in ours]
    else:
        seconds = [sum(n * cost[what] for what, n in counts.items()) for cost in costs]
    image = [1000 * (cost["image"] + cost["query"] + cost["support"]) for cost in costs]
    episode = [1000 * cost["episode"] for cost in costs]
    mean, loop = statistics.median(seconds), statistics.median(loops)
    first = ours[0]
    limit = statistics.median(
        sum(n * getattr(found, f"gflops_{what}") for what, n in counts.items())
        / found.machine_gflops
        for found in ours
    )
    return {
        "method": case.method,
        "backbone": case.backbone,
        "input_size": str(bench.side),
        "shots": str(case.shots),
        "device": first.record["cost"]["device"].rpartition(",")[0],
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "images": str(counts["image"]),
        "loop_episodes": str(len(loops) * case.loop),
        "loop_ms": f"{loop:.0f}",
        "loop_ms_low": f"{min(loops):.0f}",
        "loop_ms_high": f"{max(loops):.0f}",
        "our_episodes": str(sum(found.episodes for found in ours)),
        "our_images": str(sum(found.encoded for found in ours)),
        "image_ms": f"{statistics.median(image):.0f}",
        "episode_ms": f"{statistics.median(episode):.1f}",
        "ours_s": f"{mean:.0f}",
        "loop_s": f"{loop * EPISODES / 1000:.0f}",
        "ratio": f"{loop * EPISODES / 1000 / mean:.2f}",
        "ratio_low": f"{min(loops) * EPISODES / 1000 / max(seconds):.2f}",
        "ratio_high": f"{max(loops) * EPISODES / 1000 / min(seconds):.2f}",
        "limit_s": f"{limit:.0f}",
        "limit_share": f"{100 * limit / mean:.0f}",
        "peak_mb": f"{first.peak_mb:.0f}",
        "largest_difference": f"{largest:.1e}",
        "pixels_that_differ": f"{apart:.0f}",
    }


def grow(folder: Path) -> list[Row]:
    """What 250, 1,000 and 4,000 episodes of one method cost, and what they should."""
    from fss_bench import create_backbone, create_dataset, create_method
    from fss_bench.compute import Compute
    from fss_bench.profiling import profile
    from fss_bench.setting import create_setting

    method = create_method("panet", create_backbone("tf_efficientnet_lite0", "none"))
    dataset = create_dataset("folder", folder)
    rows: list[Row] = []
    for episodes in GROWTH:
        setting = create_setting(dataset, episodes=episodes)
        found = profile(method, setting, Compute("cpu", workers=1))
        image = found.seconds["encode"] / found.encoded
        episode = (found.wall - found.seconds["encode"]) / episodes
        first = rows[0] if rows else {"image_ms": 1000 * image, "episode_ms": 1000 * episode}
        expected = found.encoded * float(first["image_ms"]) / 1000
        expected += episodes * float(first["episode_ms"]) / 1000
        rows.append(
            {
                "episodes": str(episodes),
                "images": str(found.images),
                "encoded": str(found.encoded),
                "seconds": f"{found.wall:.1f}",
                "image_ms": f"{1000 * image:.2f}",
                "episode_ms": f"{1000 * episode:.2f}",
                "expected": f"{expected:.1f}",
                "peak_mb": f"{found.peak_mb:.0f}",
            }
        )
        print(" ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    return rows


def growth_table(rows: Sequence[Row]) -> list[str]:
    """How the time of a run grows."""
    return [
        "## Growth",
        "",
        "PANet, EfficientNet-Lite0, 417 px, 1 shot; expected by the first row's milliseconds.",
        "",
        "| episodes | distinct images | encoded | s | expected, s | image, ms | episode, ms | MB |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['episodes']} | {r['images']} | {r['encoded']} | {r['seconds']} "
            f"| {r['expected']} | {r['image_ms']} | {r['episode_ms']} | {r['peak_mb']} |"
            for r in rows
        ),
    ]


def tables(rows: Sequence[Row]) -> str:
    """The page's tables."""
    lines = [
        "## Against the straightforward loop",
        "",
        "| method, backbone, px | K | the loop, s | ours, s | ratio | of the limit | image, ms | "
        "episode, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['method']}, {r['backbone']}, {r['input_size']} | {r['shots']} | {r['loop_s']} | "
            f"{r['ours_s']} | **{r['ratio']}** ({r['ratio_low']}-{r['ratio_high']}) | "
            f"{r['limit_share']} % | {r['image_ms']} | {r['episode_ms']} |"
        )
    lines += ["", *growth_table(read_rows(GROWTH_TABLE))]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="rows to measure, such as dcama-5 or growth")
    a = parser.parse_args()
    rows = {f"{r['method']}-{r['shots']}": r for r in read_rows(TABLE)} if TABLE.exists() else {}
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        make_fold(Path(folder) / "fold")
        if not a.only or "growth" in a.only:
            write_rows(GROWTH_TABLE, GROWTH_COLUMNS, grow(Path(folder) / "fold"))
        for case in CASES:
            if a.only and case.name not in a.only:
                continue
            row = rows[case.name] = measure(case, Path(folder) / "fold")
            print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
            write_rows(TABLE, COLUMNS, [rows[c.name] for c in CASES if c.name in rows])
    write_page(PAGE, tables([rows[c.name] for c in CASES if c.name in rows]))


if __name__ == "__main__":
    main()
