"""Episodes that a checkpoint is chosen on; never those that it is tested on."""

from dataclasses import replace

from torch import nn

from fss_bench.compute import Compute
from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSampler, digest_int
from fss_bench.errors import EpisodeError
from fss_bench.evaluation import Evaluation
from fss_bench.protocols import EvaluationProtocol
from fss_bench.setting import Setting


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
            episodes of their own: another digest than every test list.
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
    specs = sampler.take(episodes)
    return Setting(dataset, single, fold, ways, shots, 0, specs, sampler.classes, sampler.skipped)


def validation_miou(method: nn.Module, setting: Setting, compute: Compute) -> float:
    """Mean IoU in percent of a method as it is, which is left in eval mode.

    Raises:
        FssBenchError: see `evaluate`; such as logits that are not finite.
    """
    return Evaluation(method, [setting], compute).run()[0].metrics.miou
