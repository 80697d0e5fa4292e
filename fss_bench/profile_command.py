"""`fss-bench profile`: what an evaluation costs, stage by stage."""

import json
from typing import Annotated

import typer

from fss_bench.compute import Compute
from fss_bench.flags import (
    BackboneName,
    BackboneOption,
    BatchSize,
    CacheDtype,
    CacheGb,
    CheckpointFile,
    DataRoot,
    Dataset,
    DatasetOption,
    Device,
    DiskGb,
    EncodeBatch,
    Json,
    MethodName,
    MethodOption,
    Plugin,
    Precision,
    Protocol,
    Quiet,
    Rule,
    Seed,
    Ways,
    Weights,
    Workers,
    check_names,
    default_workers,
    load_plugins,
    note,
    open_dataset,
)
from fss_bench.options import parse_options


def profile(
    method: MethodName,
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    fold: Annotated[int, typer.Option(help="Fold number.")] = 0,
    ways: Ways = 1,
    shots: Annotated[int, typer.Option(help="Support images a class (K).")] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes that are measured.")] = 100,
    seed: Seed = 0,
    protocol: Protocol = "standard",
    rule: Rule = [],  # noqa: B006
    backbone: BackboneName = None,
    backbone_option: BackboneOption = [],  # noqa: B006
    weights: Weights = None,
    checkpoint: CheckpointFile = None,
    option: MethodOption = [],  # noqa: B006
    device: Device = "auto",
    precision: Precision = "fp32",
    batch_size: BatchSize = 1,
    workers: Workers = None,
    cache_gb: CacheGb = None,
    disk_gb: DiskGb = None,
    cache_dtype: CacheDtype = "fp32",
    encode_batch: EncodeBatch = None,
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Parameters, FLOPs, time by stage, memory, and how near the machine's limit a run comes."""
    load_plugins(plugin)
    check_names(method=method, dataset=dataset)
    compute = Compute(
        device,
        precision,
        batch_size,
        default_workers(workers),
        cache_gb,
        disk_gb,
        cache_dtype,
        encode_batch,
    )
    rules, method_options = parse_options(rule), parse_options(option)

    from fss_bench.entrants import Backbones, Entrants
    from fss_bench.profiling import profile as measure
    from fss_bench.report.profile import profile_lines
    from fss_bench.report.progress import evaluation_progress, pass_label
    from fss_bench.setting import create_setting

    source = open_dataset(dataset, data_root, dataset_option, protocol, rules)
    setting = create_setting(
        source,
        protocol,
        fold=fold,
        ways=ways,
        shots=shots,
        episodes=episodes,
        seed=seed,
        rules=rules,
    )
    made = Backbones(parse_options(backbone_option))
    entrants = Entrants(method, backbone, made, weights, checkpoint, method_options)
    for text in entrants.check([setting]):
        if not quiet:
            note(text)
    with evaluation_progress(pass_label([setting]), quiet) as progress:
        found = measure(entrants.method_for(fold), setting, compute, progress)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
        return
    for line in profile_lines(found):
        print(line)
