"""A profile as text of 80 columns."""

from collections.abc import Iterator, Sequence

from fss_bench.profiled import Profile
from fss_bench.stage_clock import STAGES, Span

WIDTH = 60
"""Characters of the timeline."""
SHADES = " ░▒▓█"
UNITS = {"encode": "image", "segment": "episode", "score": "episode"}


def profile_lines(found: Profile) -> Iterator[str]:
    """All of a profile."""
    r = found.record
    yield f"{r['method']} on {r['backbone']}, {r['dataset']['name']} fold {r['fold']}"
    yield (
        f"{r['ways']}-way {r['shots']}-shot, {r['input_size']} px, {r['precision']}, "
        f"{r['cost']['device']}"
    )
    yield ""
    yield (
        f"parameters   {found.params_m:.2f} M, {found.trainable_m:.2f} M of them not frozen, "
        f"{found.backbone_m:.2f} M the backbone's"
    )
    yield f"peak memory  {found.peak_mb:,.0f} MB"
    yield ""
    yield from _stages(found)
    yield ""
    yield from _limit(found)
    yield ""
    yield from timeline(found.spans)


def _stages(found: Profile) -> Iterator[str]:
    counts = {"encode": found.encoded, "segment": found.episodes, "score": found.episodes}
    each = {"encode": found.gflops_image, "segment": found.gflops_episode}
    yield f"{'stage':<9}{'of':>8}{'times':>8}{'GFLOP':>10}{'ms':>10}{'seconds':>10}{'share':>8}"
    for stage in STAGES:
        seconds, count = found.seconds[stage], counts.get(stage, 0)
        gflops = f"{each[stage]:.3f}" if stage in each else ""
        milliseconds = f"{1000 * seconds / count:.2f}" if count else ""
        yield (
            f"{stage:<9}{UNITS.get(stage, ''):>8}{count or '':>8}{gflops:>10}{milliseconds:>10}"
            f"{seconds:>10.2f}{seconds / found.wall:>8.0%}"
        )
    yield f"{'all':<9}{'':>8}{'':>8}{'':>10}{'':>10}{found.wall:>10.2f}"


def _limit(found: Profile) -> Iterator[str]:
    yield "what must be computed, GFLOP:"
    for count, what, each in (
        (found.images, "images encoded", found.gflops_image),
        (found.queries, "queries reduced", found.gflops_query),
        (found.supports, "supports reduced", found.gflops_support),
        (found.episodes, "episodes segmented", found.gflops_episode),
    ):
        if count:
            yield f"{count:>8} {what:<19} x{each:>10.3f} ={count * each:>12,.1f}"
    yield (
        f"in all {found.gflops:,.1f}; at {found.machine_gflops:,.0f} GFLOP/s, the rate of large "
        f"products: {found.limit:.2f} s"
    )
    busy = found.wall - found.seconds["wait"]
    yield (
        f"this run reached {found.reached:.0%} of that"
        + (f", {found.limit / busy:.0%} while it did not wait" if busy > 0 else "")
    )


def timeline(spans: Sequence[Span]) -> Iterator[str]:
    """How busy every stage was over time; `load` is the workers', all together."""
    first = min(span.start for span in spans)
    step = max((max(span.end for span in spans) - first) / WIDTH, 1e-9)
    yield f"one character is {step:.2f} s; the darker, the busier"
    for stage in ("load", *STAGES):
        shares = [0.0] * WIDTH
        for _, start, end in (span for span in spans if span.stage == stage):
            for at in range(int((start - first) / step), WIDTH):
                left = first + at * step
                if left >= end:
                    break
                shares[at] += max(0.0, min(end, left + step) - max(start, left)) / step
        yield f"{stage:<9}" + "".join(_shade(share) for share in shares)


def _shade(share: float) -> str:
    """Any work at all shows."""
    if share <= 0.001:
        return SHADES[0]
    return SHADES[min(len(SHADES) - 1, 1 + int(share * (len(SHADES) - 1)))]
