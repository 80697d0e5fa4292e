"""Episodes whose logits are NaN or infinite: the run stops, or counts them as wrong everywhere."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fss_bench.episodes import Episode, EpisodeSpec
from fss_bench.errors import FssBenchError, one_line
from fss_bench.files import write_whole


def failed_episodes(shots: Tensor, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
    """Those of whose logits [B, K', 1 + N, h, w] one is not finite."""
    finite = torch.isfinite(shots).flatten(1).all(dim=1)
    return [spec for spec, good in zip(specs, finite.tolist(), strict=True) if not good]


def failure(episode: Episode, folder: Path | None) -> FssBenchError:
    """What stops the run, with a copy of the method's input in a folder."""
    spec = episode.spec
    copy = "" if folder is None else f"; its input is in {_save_input(episode, folder)}"
    return FssBenchError(
        f"the method returned NaN or infinite logits in episode {spec.index} (query "
        f"{spec.query}, classes {list(spec.classes)}){copy}: mend the method, try --precision "
        "fp32, or count such episodes as wrong with --failed-episodes count"
    )


def wrong_everywhere(target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An answer [H, W] that is wrong at every pixel that counts: a failure never helps a score."""
    return np.asarray(target == 0, dtype=np.uint8)


def _save_input(episode: Episode, folder: Path) -> str:
    """Write what the method was given; returns the file, or why there is none."""
    from safetensors.torch import save

    spec = episode.spec
    names = {"index": spec.index, "classes": spec.classes, "query": spec.query}
    content = save(
        {
            "support_images": episode.support_images.contiguous(),
            "support_masks": episode.support_masks.contiguous(),
            "query_image": episode.query_image.contiguous(),
        },
        {"episode": json.dumps({**names, "supports": spec.supports})},
    )
    file = folder / f"failed-episode-{spec.index}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
    except OSError as error:
        return f"no file ({one_line(error)})"
    return str(file)
