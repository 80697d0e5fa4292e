"""Episodes that a checkpoint is chosen on; none of them is in the protocol's test list."""

from collections.abc import Set
from dataclasses import replace

from torch import nn

from fss_bench.compute import Compute
from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSampler, EpisodeSpec, digest_int
from fss_bench.errors import EpisodeError
from fss_bench.evaluation import Evaluation
from fss_bench.protocols import EvaluationProtocol
from fss_bench.setting import Setting, create_setting

Key = tuple[str, frozenset[tuple[int, frozenset[str]]]]
MOST_DRAWS = 50
"""Episodes drawn for one that is wanted."""


def validation_setting(
    dataset: SegDataset,
    protocol: EvaluationProtocol,
    *,
    fold: int,
    ways: int,
    shots: int,
    kind: str,
    episodes: int,
) -> Setting:
    """The fixed list of validation episodes of a fold.

    The same for every training seed. Classes with too few images are left out.

    Args:
        dataset: the data; images are of its test split.
        protocol: resolved; how images are sized and scores counted.
        fold, ways, shots: of the training run.
        kind: `base`: base classes, in images without any novel pixel. `novel`: novel classes, in
            episodes that are not in the test list: another query, or other supports.
        episodes: how many.

    Raises:
        EpisodeError: there are too few images.
    """
    novel = dataset.novel_classes(fold)
    classes = dataset.base_classes(fold) if kind == "base" else novel
    without = novel if kind == "base" else ()
    single = replace(protocol, runs=1, seeds=())
    try:
        sampler = EpisodeSampler(
            dataset.index.pools("test", classes, protocol.min_pixels, without=without),
            fold=fold,
            ways=ways,
            shots=shots,
            seed=digest_int("validation", kind),
            names=dataset.class_names,
            short_classes="skip",
        )
    except EpisodeError as error:
        raise EpisodeError(
            f"--validation {kind}: the test images of {dataset.name} give no such episodes "
            f"({error}); choose --validation {'novel' if kind == 'base' else 'base'} or none"
        ) from error
    tested: set[Key] = set()
    if kind == "novel":
        test = create_setting(dataset, protocol, fold=fold, ways=ways, shots=shots)
        tested = {_key(spec) for spec in test.specs}
    specs = _untested(sampler, episodes, tested, dataset.name)
    return Setting(dataset, single, fold, ways, shots, 0, specs, sampler.classes, sampler.skipped)


def _untested(
    sampler: EpisodeSampler, episodes: int, tested: Set[Key], name: str
) -> list[EpisodeSpec]:
    """The first so many episodes that no test list has, numbered anew.

    Raises:
        EpisodeError: hardly any of them is another one.
    """
    found: list[EpisodeSpec] = []
    for number in range(MOST_DRAWS * episodes):
        spec = sampler[number]
        if _key(spec) not in tested:
            found.append(replace(spec, index=len(found)))
        if len(found) == episodes:
            return found
    raise EpisodeError(
        f"--validation novel: of {MOST_DRAWS * episodes} episodes of {name} only {len(found)} are "
        "not in the test list: choose --validation base or none, or fewer --validation-episodes"
    )


def _key(spec: EpisodeSpec) -> Key:
    """What an episode shows, whatever the order of its ways and shots."""
    ways = zip(spec.classes, spec.supports, strict=True)
    return spec.query, frozenset((c, frozenset(images)) for c, images in ways)


def validation_miou(method: nn.Module, setting: Setting, compute: Compute) -> float:
    """Mean IoU in percent of a method as it is, which is left in eval mode.

    Raises:
        FssBenchError: see `evaluate`; such as logits that are not finite.
    """
    return Evaluation(method, [setting], compute).run()[0].metrics.miou
