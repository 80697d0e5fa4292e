"""What a batch, its groups and a queue must be, with a value that fits where they are not."""

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.recipes import Recipe

SMALLEST_GROUP = 4
"""Images from which batch normalisation takes its statistics, at least, by default."""


def check_batch(recipe: Recipe, ranks: int, batch_norm: bool) -> None:
    """Refuse what no number of images would mend: a batch that cannot be shared or grouped.

    Args:
        recipe: batch and `bn_groups`.
        ranks: processes that share a batch.
        batch_norm: whether the trunk has batch normalisation.

    Raises:
        FssBenchError: with the numbers and a value that fits.
    """
    batch = recipe.batch_size
    if batch % ranks or batch < 2 * ranks:
        raise FssBenchError(
            f"a batch of {batch} images cannot be shared by {ranks} processes: use --batch-size "
            f"{max(2, -(-batch // ranks)) * ranks}"
        )
    groups, share = recipe.bn_groups, batch // ranks
    if groups and (share % groups or share < 2 * groups):
        raise FssBenchError(
            f"bn_groups={groups}: {share} images a forward and process make no such number of "
            "equal groups of two or more: choose another --batch-size, or other bn_groups"
        )
    if recipe.queue_size and batch_norm and not groups:
        default_bn_groups(batch, ranks)


def check_fit(recipe: Recipe, images: int, accumulate: int, ranks: int) -> None:
    """Refuse a step or a queue that the images cannot fill.

    Args:
        recipe: batch and queue.
        images: how many there are.
        accumulate: forwards a step.
        ranks: processes that share a batch.

    Raises:
        FssBenchError: with the numbers and a value that fits.
    """
    batch = recipe.batch_size
    step = batch * accumulate
    if step > images:
        fits = largest_batch(images // accumulate, ranks)
        cure = f"use --batch-size {fits}, or give" if fits >= 2 * ranks else "give"
        raise FssBenchError(
            f"{images} usable images do not fill one step of {batch} x {accumulate} = {step}: "
            f"{cure} {step} images or more"
        )
    if recipe.queue_size:
        check_queue(recipe.queue_size, batch, images)


def check_queue(queue: int, batch: int, images: int | None = None) -> None:
    """Refuse a queue that does not hold whole batches of all ranks, or is more than the images.

    Args:
        queue: its keys.
        batch: images of a forward, of all ranks.
        images: how many there are, where that is known.

    Raises:
        FssBenchError: with a value that fits.
    """
    most = queue if images is None else min(queue, images)
    if queue == most and queue >= batch and queue % batch == 0:
        return
    why = (
        f"is more than the {images} usable images"
        if queue > most
        else f"is no multiple of the batch of {batch}"
    )
    fits = max(1, most // batch) * batch
    raise FssBenchError(f"a queue of {queue} keys {why}: use --option queue_size={fits}")


def default_bn_groups(batch: int, ranks: int) -> int:
    """Groups that batch normalisation sees apart: as many as on the paper's 8 GPUs, if it can be.

    Args:
        batch: images of a forward pass, of all ranks.
        ranks: processes; with several of them, each is one group.

    Raises:
        FssBenchError: no split into 2, 4 or 8 equal groups of at least 4 images.
    """
    if ranks > 1:
        return 1
    for groups in (8, 4, 2):
        if batch % groups == 0 and batch >= SMALLEST_GROUP * groups:
            return groups
    raise FssBenchError(
        f"a batch of {batch} images cannot be split into 2, 4 or 8 equal groups of at least "
        f"{SMALLEST_GROUP} images for shuffled batch normalisation: choose a --batch-size of "
        f"{max(2 * SMALLEST_GROUP, batch + batch % 2)}, or set bn_groups"
    )


def largest_batch(images: int, ranks: int) -> int:
    """The largest power of two times `ranks` that is at most `images`; 0 if there is none."""
    share = images // ranks
    return ranks * 2 ** (share.bit_length() - 1) if share else 0
