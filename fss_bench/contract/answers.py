"""Promises about a method's logits."""

import inspect

import torch
from torch import Tensor

from fss_bench.contract.checking import ContractError, NotApplicable
from fss_bench.contract.subject import Episodes, Subject, episodes

MASKS = "compare masks with == 1 and == 0, and keep divisions from 0"


def check_logits(logits: Tensor, batch: int, ways: int) -> None:
    """Raise ContractError unless these are finite floats [B, 1 + N, h, w]."""
    if not isinstance(logits, Tensor):
        raise ContractError(f"forward returned a {type(logits).__name__}", "return logits alone")
    if logits.ndim != 4 or logits.shape[:2] != (batch, 1 + ways):
        raise ContractError(
            f"logits {list(logits.shape)} for {batch} episodes of {ways} ways",
            f"return [{batch}, {1 + ways}, h, w], background first",
        )
    if not logits.is_floating_point():
        raise ContractError(f"logits of type {logits.dtype}", "return scores, not labels")
    check_finite(logits, "random masks")


def check_finite(logits: Tensor, given: str) -> None:
    """Raise ContractError for NaN or infinite logits."""
    wrong = int((~logits.isfinite()).sum())
    if wrong:
        raise ContractError(f"{wrong} of {logits.numel()} logits not finite for {given}", MASKS)


def apart(one: Tensor, other: Tensor, allowed: float = 1e-5) -> float:
    """The largest difference where it is more than rounding explains, else 0."""
    peak = max(float(one.abs().max()), float(other.abs().max()))
    difference = float((one - other).abs().max())
    return difference if difference > max(allowed, peak * allowed / 10) else 0.0


def forward_arguments(subject: Subject) -> str:
    """`forward` takes support images, support masks and query images, and no query mask."""
    taken = inspect.signature(subject.method.forward).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in taken):
        return "any number"
    needed = [p.name for p in taken if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(needed) != 3:
        raise ContractError(
            f"it takes {', '.join(needed) or 'nothing'}",
            "write forward(self, support_images, support_masks, query_images)",
        )
    return ", ".join(needed)


def logits_shape(subject: Subject) -> str:
    """Logits are finite floats [B, 1 + N, h, w] for one and more ways and shots."""
    sizes = []
    for ways, shots in ((1, 1), (2, 1), (1, 5), (2, 5)):
        logits = subject.answer(subject.episodes(1, ways, shots))
        check_logits(logits, 1, ways)
        sizes.append("x".join(map(str, logits.shape[-2:])))
    return f"1 and 2 ways, 1 and 5 shots, maps of {', '.join(dict.fromkeys(sizes))}"


def image_sides(subject: Subject) -> str:
    """Images need no particular side."""
    if subject.fixed_side:
        raise NotApplicable(f"the backbone takes {subject.fixed_side} px alone")
    for side in (65, 97):
        check_logits(subject.answer(episodes(1, 2, 2, side)), 1, 2)
    return "65 and 97 px"


def batch_of_episodes(subject: Subject) -> str:
    """An answer does not depend on what else is in the batch."""
    given = subject.episodes(2, 2, 2)
    together = subject.answer(given)
    check_logits(together, 2, 2)
    alone = [subject.answer(Episodes(*(t[i : i + 1] for t in given))) for i in range(2)]
    difference = apart(together, torch.cat(alone))
    if difference:
        raise ContractError(
            f"logits of two episodes together are {difference:.1e} off from each alone",
            "mix nothing along the first dimension",
        )
    return "two together are as each alone"


def answers_repeat(subject: Subject) -> str:
    """The same episode gives the same answer again, bit for bit."""
    given = subject.episodes(1, 2, 2)
    first, second = subject.answer(given), subject.answer(given)
    if not torch.equal(first, second):
        raise ContractError(
            f"the second answer is {float((first - second).abs().max()):.1e} off",
            "draw nothing at random in eval mode, and keep nothing between calls",
        )
    return "twice the same"


def supports_matter(subject: Subject) -> str:
    """Other support images, and other masks, give another answer."""
    given, other = subject.episodes(1, 1, 1), subject.episodes(1, 1, 1, seed=1)
    answer = subject.answer(given)
    if float((answer - answer.mean(dim=(2, 3), keepdim=True)).abs().max()) == 0:
        raise NotApplicable("untrained, it answers alike everywhere")
    for part in ("support_images", "support_masks"):
        if torch.equal(answer, subject.answer(given._replace(**{part: getattr(other, part)}))):
            raise ContractError(f"other {part} give the same answer", "use them")
    return "both do"


def way_order(subject: Subject) -> str:
    """Ways in another order give the same answer in that order."""
    given, order = subject.episodes(1, 3, 1), [2, 0, 1]
    logits = subject.answer(given)
    permuted = subject.answer(Episodes(given[0][:, order], given[1][:, order], given.query_images))
    wanted = torch.cat([logits[:, :1], logits[:, 1:][:, order]], dim=1)
    difference = apart(permuted, wanted, 1e-4)
    if difference:
        raise ContractError(
            f"logits are {difference:.1e} off", "treat ways alike: their order means nothing"
        )
    return "three ways, permuted"


def shot_order(subject: Subject) -> str:
    """The order of the shots changes nothing, or the method says that it does."""
    given, order = subject.episodes(1, 1, 3), [1, 2, 0]
    permuted = Episodes(given[0][:, :, order], given[1][:, :, order], given.query_images)
    difference = apart(subject.answer(permuted), subject.answer(given), 1e-4)
    says = getattr(subject.method, "shots_commute", None)
    if not difference:
        return "no difference"
    if says:
        raise ContractError(
            f"logits are {difference:.1e} off",
            "treat shots alike, or set shots_commute = False in the class",
        )
    return f"it matters, by {difference:.1e}" + ("" if says is None else ", as it says")


def ignored_pixels(subject: Subject) -> str:
    """Ignored pixels (255) of a support mask give finite logits."""
    given = subject.episodes(1, 1, 2)
    answer = subject.answer(given)
    check_finite(answer, "masks with 255")
    alike = []
    for value, meaning in ((1, "foreground"), (0, "background")):
        masks = torch.where(given.support_masks == 255, value, given.support_masks)
        if not apart(answer, subject.answer(given._replace(support_masks=masks))):
            alike.append(meaning)
    if len(alike) == 2:
        return "what they count as makes no difference yet"
    return f"they count as {alike[0]}" if alike else "they count as neither class"


def one_sided_masks(subject: Subject) -> str:
    """Support masks without foreground, or with nothing else, give finite logits."""
    for shots in (1, 2):
        given = subject.episodes(1, 1, shots)
        for value in (0, 1, 255):
            masks = torch.full_like(given.support_masks, value)
            answer = subject.answer(given._replace(support_masks=masks))
            check_finite(answer, f"masks of nothing but {value}")
    return "masks of nothing but 0, 1 or 255"


def reduced_precision(subject: Subject) -> str:
    """It runs under bf16 autocast, for `--precision bf16`."""
    with torch.autocast("cpu", torch.bfloat16):
        check_finite(subject.answer(subject.episodes(1, 1, 1)).float(), "bf16")
    return "finite"
