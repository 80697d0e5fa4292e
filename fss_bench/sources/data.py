"""Published datasets.

A hash is here only if the publisher states it, or if a project that many use checks it; where it
comes from stands beside it. A file without one cannot be checked on its first fetch.
"""

from collections.abc import Mapping

from fss_bench.source import Source, SourceFile

TORCHVISION, TFDS = "torchvision", "TensorFlow Datasets"
VOC_PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
SBD_PAGE = "http://home.bharathh.info/pubs/codes/SBD/download.html"
BERKELEY = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
INSIDE = "VOCdevkit/VOC2012"
PASCAL = Source(
    "pascal5i",
    "VOC 2012 and SBD",
    "VOC2012",
    (
        SourceFile(
            "VOCtrainval_11-May-2012.tar",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            VOC_PAGE,
            "Flickr's terms of use",
            1999639040,
            {
                "sha256": "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                "md5": "6cd6e144f989b92b3379bac3b3de84fd",
            },
            f"size, sha256: {TFDS}; md5: {TORCHVISION}",
            unpack={
                f"{INSIDE}/{name}": name
                for name in ("JPEGImages", "SegmentationClass", "ImageSets")
            },
        ),
        SourceFile(
            "benchmark.tgz",
            f"{BERKELEY}/benchmark.tgz",
            SBD_PAGE,
            "not stated",
            None,  # 1.4 GB; its md5 tells a whole file
            {"md5": "82b4d87ceb2ed10f6038a1cba92111cb"},
            f"md5: {TORCHVISION}",
            unpack={"benchmark_RELEASE/dataset": "SBD"},
        ),
    ),
    dataset="pascal5i",
)


def _coco(year: str, facts: Mapping[str, tuple[int, str]]) -> tuple[SourceFile, ...]:
    """Files of a year; facts are size and sha256 by name."""
    annotations = {f"annotations/instances_{s}{year}.json" for s in ("train", "val")}
    unpack = {
        f"annotations_trainval{year}": {path: path for path in sorted(annotations)},
        f"train{year}": {f"train{year}": f"train{year}"},
        f"val{year}": {f"val{year}": f"val{year}"},
    }
    return tuple(
        SourceFile(
            f"{stem}.zip",
            "http://images.cocodataset.org/"
            f"{'annotations' if stem.startswith('a') else 'zips'}/{stem}.zip",
            "https://cocodataset.org/#download",
            "CC BY 4.0 (annotations), Flickr's terms of use (images)",
            facts[stem][0],
            {"sha256": facts[stem][1]},
            TFDS,
            unpack=places,
        )
        for stem, places in unpack.items()
    )


COCO_2014 = Source(
    "coco20i",
    "COCO 2014, which published COCO-20i numbers use",
    "COCO",
    _coco(
        "2014",
        {
            "annotations_trainval2014": (
                252872794,
                "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            ),
            "train2014": (
                13510573713,
                "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            ),
            "val2014": (
                6645013297,
                "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            ),
        },
    ),
    dataset="coco20i",
)
COCO_2017 = Source(
    "coco20i-2017",
    "COCO 2017",
    "COCO",
    _coco(
        "2017",
        {
            "annotations_trainval2017": (
                252907541,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
            "train2017": (
                19336861798,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
            "val2017": (
                815585330,
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
        },
    ),
    dataset="coco20i",
)

FSS_PAGE = "https://github.com/HKUSTCV/FSS-1000"
FSS_DRIVE = "16TgqOeI_0P41Eh3jWQlxlRXG9KIqtMgI"
FSS_LISTS = {  # computed from copies of the lists of HSNet's repository, which all later codes use
    "trn.txt": (5133, "815bce03f2502719ba3bd9c1f79111b74ec8ab63e6111830ff7312de49b1cf17"),
    "val.txt": (2340, "9cac02c58602f2789b4e6393200e450e3ba1edae6673d6a87ae2063d0c547aee"),
    "test.txt": (2785, "26f1b9e9dd0c4a58c01db306aeb5bccb5de361d544ec1b15f219efc4b74c0bf1"),
}
FSS = Source(
    "fss1000",
    "FSS-1000 and the lists of its classes",
    "FSS-1000",
    (
        *(
            SourceFile(
                f"fss-{name}",
                f"https://raw.githubusercontent.com/juhongm999/hsnet/main/data/splits/fss/{name}",
                "https://github.com/juhongm999/hsnet",
                "not stated",
                size,
                {"sha256": sha256},
                "our copy of HSNet's lists",
                lands=f"splits/{name}",
            )
            for name, (size, sha256) in FSS_LISTS.items()
        ),
        SourceFile(
            "fewshot_data.zip",
            f"https://drive.usercontent.google.com/download?id={FSS_DRIVE}&export=download&confirm=t",
            FSS_PAGE,
            "not stated",
            unpack={"fewshot_data/fewshot_data": "."},
            listed_in=tuple(f"splits/{name}" for name in FSS_LISTS),
        ),
    ),
    dataset="fss1000",
)
DATASETS = {source.name: source for source in (PASCAL, COCO_2014, COCO_2017, FSS)}
