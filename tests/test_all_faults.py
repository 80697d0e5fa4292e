"""Trees with every fault at once: `data verify` tells each once, in one run."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_data import run_command
from bad_pictures import GOOD, bomb
from bad_trees import HEIGHT, NAMES, WIDTH, box, coco, fss, labels, own, own_coco, voc
from PIL import Image

EXIF_6 = Image.Exif()
EXIF_6[0x0112] = 6


@dataclass(frozen=True)
class Answer:
    """What `data verify --json` said.

    Attributes:
        status: of the command.
        errors: its stderr.
        problems: texts of what must be mended.
        notes: texts of what is only worth telling.
    """

    status: int
    errors: str
    problems: list[str]
    notes: list[str]


def verify(name: str, root: Path) -> Answer:
    arguments = ("data", "verify", "--dataset", name, "--data-root", root, "--quiet")
    status, out, errors = run_command(*arguments, "--json")
    answer = json.loads(out)
    problems = [f["text"] for f in answer["found"] if f["grave"]]
    notes = [f["text"] for f in answer["found"] if not f["grave"]]
    assert (answer["problems"], answer["notes"]) == (len(problems), len(notes))
    plain = run_command(*arguments)[1].splitlines()
    assert len(plain) == len(problems) + len(notes)
    return Answer(status, errors, problems, notes)


def check(answer: Answer, problems: Sequence[str], notes: Sequence[str]) -> None:
    """Each of these is told once, and nothing else."""
    for told, expected in ((answer.problems, problems), (answer.notes, notes)):
        for words in expected:
            assert len([text for text in told if words in text]) == 1, (words, told)
        assert len(told) == len(expected), told
        assert not any("\n" in text for text in told)
    assert answer.status == 2
    assert f"error: {len(problems)} problems in" in answer.errors


def grey(file: Path, value: int, width: int = WIDTH) -> None:
    Image.new("L", (width, HEIGHT), value).save(file, "PNG")


def more(photographs: Path, masks: Path, suffix: str, count: int) -> list[str]:
    """More good images; names of all."""
    names = [f"c1_{i}" for i in range(3, 3 + count)]
    for name in names:
        shutil.copy(photographs / f"{NAMES[0]}{suffix}", photographs / f"{name}{suffix}")
        shutil.copy(masks / f"{NAMES[0]}.png", masks / f"{name}.png")
    return [*NAMES, *names]


def break_label_maps(root: Path, photographs: str, masks: str, suffix: str) -> list[str]:
    """Faults of single images in a tree of label maps; names of all images."""
    names = more(root / photographs, root / masks, suffix, 12)
    images = iter([root / photographs / f"{name}{suffix}" for name in names])
    (file := next(images)).write_bytes(file.read_bytes()[:60])
    next(images).write_bytes(b"")
    next(images).write_bytes(bomb(10_000, 10_000))
    next(images).unlink()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(next(images), "PNG", exif=EXIF_6)
    shown = [Image.new("L", (WIDTH, HEIGHT), value) for value in (0, 255)]
    shown[0].save(next(images), "GIF", save_all=True, append_images=shown[1:])
    rest = iter([root / masks / f"{name}.png" for name in names[6:]])
    (file := next(rest)).write_bytes(file.read_bytes()[:40])
    next(rest).unlink()
    grey(next(rest), 99)
    grey(next(rest), 1, WIDTH + 1)
    next(rest).write_bytes(GOOD)
    Image.fromarray(labels(1).astype(np.uint16)).save(next(rest))
    grey(next(rest), 255)
    grey(next(rest), 0)
    linked = next(rest)
    shutil.move(linked, root.parent / "outside.png")
    linked.symlink_to(root.parent / "outside.png")
    return names


LABEL_MAP_NOTES = (
    *("EXIF orientation 6", "has 2 frames", "nothing but 255", "shows no class", "is a link"),
)


def label_map_problems(names: Sequence[str], suffix: str) -> list[str]:
    """Words of what `break_label_maps` broke."""
    return [
        *(f"{name}{suffix} cannot be read" for name in names[:3]),
        f"{names[3]}{suffix} is missing",
        f"{names[6]}.png cannot be read",
        f"{names[7]}.png is missing",
        f"image {names[8]} holds class id 99",
        f"image {names[9]} is {WIDTH + 1}x{HEIGHT}",
        f"{names[10]}.png has mode RGB",
        f"{names[11]}.png has mode I;16",
    ]


def test_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "tree")
    names = break_label_maps(root, "JPEGImages", "SegmentationClass", ".jpg")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("\n".join(names[:9]) + "\n../secret\nnowhere\n")
    text = "\n".join([*names[9:], names[9]])
    (lists / "val.txt").write_bytes(text.encode() + b"\ncaf\xe9\n")
    broken = label_map_problems(names, ".jpg")
    both = ("nowhere.jpg is missing", "nowhere.png is missing")
    problems = (*broken, *both, "lead out of the folder", "is not UTF-8 in line")
    check(verify("pascal5i", root), problems, (*LABEL_MAP_NOTES, "names 1 more than once"))


def test_own_label_maps(tmp_path: Path) -> None:
    root = own(tmp_path / "tree")
    names = break_label_maps(root, "images", "masks", ".png")
    shutil.copy(root / "images" / f"{names[10]}.png", root / "images" / f"{names[10]}.webp")
    (root / "images" / f"{names[3]}.jpg").symlink_to("gone.jpg")
    (root / "train.txt").write_text("\n".join(names) + "\nnowhere\n/etc/passwd\n")
    broken = label_map_problems(names, ".png")
    broken[3] = f"{names[3]}.jpg is missing"
    lists = ("nowhere", "lead out of the folder", "would share one mask")
    check(verify("folder", root), (*broken, *lists), LABEL_MAP_NOTES)


def test_fss1000(tmp_path: Path) -> None:
    root = fss(tmp_path / "tree")
    for i in range(3, 9):
        for suffix in (".jpg", ".png"):
            shutil.copy(root / "c2" / f"0{suffix}", root / "c2" / f"{i}{suffix}")
    folder = root / "c2"
    (folder / "0.jpg").write_bytes(b"")
    (folder / "1.jpg").unlink()
    (folder / "2.png").unlink()
    (folder / "3.jpg").write_bytes(bomb(50_000, 50_000))
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:40])
    grey(folder / "5.png", 255, WIDTH + 1)
    grey(folder / "6.png", 0)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(
        folder / "7.jpg", "PNG", exif=EXIF_6
    )
    (root / "splits" / "test.txt").write_text("c2\nwolf\n../c1\nc2\nc1\n")
    problems = (
        *("0.jpg cannot be read", "1.jpg is missing", "2.png is missing"),
        *("3.jpg cannot be read", "4.png cannot be read", "width x height"),
        *("no folder with masks for 1 listed classes (wolf)", "lead out", "both list c1"),
    )
    notes = ("shows no class", "EXIF orientation 6", "names 1 more than once (c2)")
    check(verify("fss1000", root), problems, notes)


def break_annotations(content: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Faults of a file of six images; words of problems and notes."""
    entries = content["annotations"]
    entries[0]["category_id"] = 7
    entries[1]["segmentation"] = []
    entries[2]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": "5"}
    entries[3]["segmentation"] = box(WIDTH + 2, WIDTH + 5)
    entries[4]["segmentation"] = box(2, WIDTH + 4)
    entries[5]["iscrowd"] = 1
    first = content["images"][0]["id"]
    extra: dict[str, Any] = {"image_id": first, "category_id": 10}
    entries += [
        {**extra, "id": 1, "segmentation": box()},
        {**extra, "id": 90, "segmentation": [[0, 0, 4, 0, 4, 4, 1]]},
        {**extra, "id": 91, "segmentation": box(), "image_id": 999},
    ]
    size = {"height": HEIGHT, "width": WIDTH}
    content["images"] += [
        {"id": 50, "file_name": "../a.png", **size},
        {"id": 51, "file_name": "large.png", "height": 10**9, "width": 10**9},
    ]
    problems = [
        *("has category id 7", "no polygon and no run-length code", "counts add up to 5"),
        *("odd number of coordinates", "leads out of the image folder", "1000000000x1000000000"),
    ]
    notes = [
        *("covers no pixel", "4 px out of its image", "only crowd regions"),
        *("annotation id 1 is there more than once", "annotations of image 999"),
    ]
    return problems, notes


def test_own_coco_annotations(tmp_path: Path) -> None:
    root = own_coco(tmp_path / "tree")
    content = json.loads((root / "annotations.json").read_text())
    problems, notes = break_annotations(content)
    content["categories"].append({"id": 30, "name": "dog"})
    (root / "annotations.json").write_text(json.dumps(content))
    (root / "images" / "c2_2.png").write_bytes(b"")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "images" / "c2_1.png")
    more = ("category name 'dog'", "it is none of JPEG", "width x height")
    check(verify("folder", root), (*problems, *more), notes)


@pytest.mark.parametrize("prefix", ["train", "val"])
def test_coco(tmp_path: Path, prefix: str) -> None:
    root = coco(tmp_path / "tree")
    file = root / "annotations" / f"instances_{prefix}2017.json"
    content = json.loads(file.read_text())
    problems, notes = break_annotations(content)
    content["images"].append({**content["images"][5]})
    file.write_text(json.dumps(content))
    (root / f"{prefix}2017" / content["images"][4]["file_name"]).unlink()
    more = ("image id", "file_name '0000", "is missing: restore it")
    check(verify("coco20i", root), (*problems, *more), notes)


def test_a_tree_of_links_does_not_fill_the_screen(tmp_path: Path) -> None:
    root = own(tmp_path / "tree")
    names = more(root / "images", root / "masks", ".png", 20)
    (tmp_path / "outside").mkdir()
    for name in names:
        for file in (root / "images" / f"{name}.png", root / "masks" / f"{name}.png"):
            target = tmp_path / "outside" / f"{file.parent.name}-{name}.png"
            shutil.move(file, target)
            file.symlink_to(target)
    arguments = ("data", "verify", "--dataset", "folder", "--data-root", root, "--quiet")
    status, out, _ = run_command(*arguments)
    assert status == 0
    lines = out.splitlines()
    assert lines[20] == f"note: {2 * len(names) - 20} more notes: --json has them all"
    assert lines[21] == f"{root}: no problems, {2 * len(names)} notes"
    answer = json.loads(run_command(*arguments, "--json")[1])
    assert (answer["problems"], answer["notes"]) == (0, 2 * len(names))
