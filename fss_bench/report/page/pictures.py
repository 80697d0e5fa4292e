"""Pictures of episodes with predictions, small enough to be a part of the page."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fss_bench.annotations import support_annotation
from fss_bench.dataset import SegDataset, checked_image
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import one_line
from fss_bench.images import UNREADABLE, decode
from fss_bench.protocols import EvaluationProtocol
from fss_bench.report.sheet import overlay, support_picture
from fss_bench.results import Run

TILE, GAP = 132, 4


@dataclass(frozen=True)
class EpisodePictures:
    """Makes pictures of episodes whose predictions were kept.

    Attributes:
        datasets: where pixels come from, by registered name.
        note: told once of each run whose data or predictions do not serve.
    """

    datasets: Mapping[str, SegDataset]
    note: Callable[[str], None]
    _told: set[str] = field(default_factory=set, init=False, compare=False)

    def __call__(self, run: Run, index: int) -> str | None:
        """First support, query with prediction, query with truth; None if it cannot be made."""
        dataset = self.datasets.get(run.record["dataset"]["name"].partition("@")[0])
        if dataset is None or run.path is None or not run.has_predictions:
            return None
        if dataset.index.fingerprint != run.record["dataset"]["fingerprint"]:
            self._tell(run, "it is of other data")
            return None
        row = run.episodes.set_index("index").loc[index]
        classes = tuple(int(c) for c in row["class_ids"])
        supports = tuple(tuple(map(str, way)) for way in row["supports"])
        spec = EpisodeSpec(index, run.record["fold"], classes, str(row["query"]), supports)
        try:
            picture = decode(run.path / "predictions" / f"{index}.png")
        except UNREADABLE as error:
            self._tell(run, f"a prediction cannot be read ({one_line(error)})")
            return None
        return _address(_strip(dataset, spec, np.asarray(picture, dtype=np.uint8), run))

    def _tell(self, run: Run, why: str) -> None:
        text = f"run {run.record['run_id']} lacks pictures: {why}"
        if text not in self._told:
            self._told.add(text)
            self.note(text)


def _strip(
    dataset: SegDataset, spec: EpisodeSpec, prediction: NDArray[np.uint8], run: Run
) -> Image.Image:
    protocol = _protocol(run.record["protocol"])
    query = checked_image(dataset, spec.query)
    size = query.shape[1], query.shape[0]
    labels = cv2.resize(prediction, size, interpolation=cv2.INTER_NEAREST)
    answer = [((labels == way + 1).astype(np.uint8), way) for way in range(len(spec.classes))]
    truth = [(dataset.load_mask(spec.query, c), way) for way, c in enumerate(spec.classes)]
    support = support_picture(
        checked_image(dataset, spec.supports[0][0]),
        support_annotation(dataset, protocol, spec, 0, 0),
        0,
        TILE,
        protocol,
    )
    tiles = [support, overlay(query, answer, TILE), overlay(query, truth, TILE)]
    strip = Image.new("RGB", (len(tiles) * (TILE + GAP) - GAP, TILE), "white")
    for i, tile in enumerate(tiles):
        strip.paste(tile, (i * (TILE + GAP), 0))
    return strip


def _address(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    content = BytesIO()
    picture.save(content, format="JPEG", quality=78)
    return "data:image/jpeg;base64," + b64encode(content.getvalue()).decode()


def _protocol(record: Mapping[str, Any]) -> EvaluationProtocol:
    """A protocol as a run keeps it."""
    rules = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    del rules["label"]
    return EvaluationProtocol(str(rules.pop("name"))).replace_rules(rules)
