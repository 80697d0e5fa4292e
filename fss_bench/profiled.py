"""What a profile says. No torch here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fss_bench.stage_clock import Span

PRODUCT = 2048
"""Side of the square matrices whose product says what the machine can do."""
ROLES = ("image", "query", "support")
CONVOLUTION = (512, 64)
"""Channels and side of the maps whose 3x3 convolution says it too: some machines convolve at twice
the rate at which they multiply matrices."""


@dataclass(frozen=True)
class Profile:
    """What one evaluation cost.

    Attributes:
        record: the run's, as in run.json: method, backbone, dataset, sizes, device.
        images: distinct images of the episodes.
        encoded: how often an image was encoded; more than `images` where memory was short.
        episodes: how many.
        params_m, trainable_m, backbone_m: millions of parameters: all, those that are not frozen,
            the backbone's.
        queries, supports: distinct images of queries, and distinct supports with their masks, of
            a method in parts; else 0.
        gflops_image: to encode an image; 0 where the method cannot be split.
        gflops_query, gflops_support: to make the part of one that is encoded; means of some real
            episodes, as all of these.
        gflops_episode: to segment an episode whose images are encoded and parts made.
        made: `image` encoded, `query` and `support` reduced -> how many, and seconds of all.
        seconds: stage -> seconds of the process that segments; see `STAGES`.
        wall: seconds from the first image to the last row.
        peak_mb: largest memory.
        machine_gflops: GFLOP a second of a large matrix product or convolution here, the better of
            the two, at the run's precision.
        spans: every stage, and `load` of the workers, in the order of their ends.
    """

    record: dict[str, Any]
    images: int
    encoded: int
    episodes: int
    params_m: float
    trainable_m: float
    backbone_m: float
    queries: int
    supports: int
    gflops_image: float
    gflops_query: float
    gflops_support: float
    gflops_episode: float
    made: dict[str, tuple[int, float]]
    seconds: dict[str, float]
    wall: float
    peak_mb: float
    machine_gflops: float
    spans: Sequence[Span]

    @property
    def gflops(self) -> float:
        """What must be computed: every image once, every part once, every episode once."""
        return (
            self.images * self.gflops_image
            + self.queries * self.gflops_query
            + self.supports * self.gflops_support
            + self.episodes * self.gflops_episode
        )

    @property
    def limit(self) -> float:
        """Seconds that it would take at the machine's rate."""
        return self.gflops / self.machine_gflops

    @property
    def reached(self) -> float:
        """Share of the machine's rate that the run reached."""
        return self.limit / self.wall

    def as_json(self) -> dict[str, Any]:
        """Everything but the spans."""
        fields = asdict(self)
        record = fields.pop("record")
        del fields["spans"]
        named = ("method", "backbone", "fold", "ways", "shots", "input_size", "precision")
        return {
            **{name: record[name] for name in named},
            "dataset": record["dataset"]["name"],
            "device": record["cost"]["device"],
            **fields,
            "gflops": self.gflops,
            "limit": self.limit,
            "reached": self.reached,
        }
