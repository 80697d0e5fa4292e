"""`verify` tells everything that is wrong with a dataset, and nothing of a clean one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fss_bench import create_dataset
from fss_bench.verification import Problem, verify

MakeFolder = Callable[..., Path]


def found_in(root: Path) -> dict[str, Problem]:
    problems = list(verify(create_dataset("folder", root)))
    assert len({problem.image for problem in problems}) == len(problems)
    return {problem.image: problem for problem in problems}


def break_four_ways(root: Path) -> None:
    photograph = root / "images" / "c1_0.jpg"
    photograph.write_bytes(photograph.read_bytes()[:500])
    (root / "masks" / "c2_1.png").unlink()
    Image.fromarray(np.full((64, 48), 3, np.uint8)).save(root / "masks" / "c3_2.png")
    Image.fromarray(np.full((48, 64), 5, np.uint8)).save(root / "masks" / "c4_0.png")


def test_a_clean_tree_has_no_problems(make_folder: MakeFolder) -> None:
    assert found_in(make_folder()) == {}


def test_all_problems_are_found_in_one_pass(make_folder: MakeFolder) -> None:
    root = make_folder()
    break_four_ways(root)
    problems = found_in(root)
    assert set(problems) == {"c1_0", "c2_1", "c3_2", "c4_0"}
    texts = {image: problem.text for image, problem in problems.items()}
    assert f"image {root / 'images' / 'c1_0.jpg'} cannot be read" in texts["c1_0"]
    assert f"mask {root / 'masks' / 'c2_1.png'} is missing" in texts["c2_1"]
    assert "mask of image c3_2 is 48x64, the image 64x48" in texts["c3_2"]
    assert "mask of image c4_0 holds class id 5, folder has 1 to 4" in texts["c4_0"]
    assert not any("\n" in text for text in texts.values())


def test_an_image_may_have_two_problems(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "images" / "c1_0.jpg").write_bytes(b"")
    (root / "masks" / "c1_0.png").write_bytes(b"")
    texts = [problem.text for problem in verify(create_dataset("folder", root))]
    assert ["c1_0.jpg" in text for text in texts] == [True, False]
    assert ["c1_0.png" in text for text in texts] == [False, True]


def test_problems_name_the_first_split_of_an_image(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "train.txt").write_text("c1_0\nc2_0\n")
    (root / "test.txt").write_text("c4_0\nc1_0\n")
    break_four_ways(root)
    assert {image: problem.split for image, problem in found_in(root).items()} == {
        "c1_0": "train",
        "c4_0": "test",
    }


def test_a_list_that_cannot_be_used_is_a_problem_of_its_split(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "test.txt").write_text("c1_0\nnowhere\n")
    break_four_ways(root)
    problems = found_in(root)
    assert set(problems) == {"", "c1_0", "c2_1", "c3_2", "c4_0"}
    assert problems[""].split == "test"
    assert "nowhere" in problems[""].text


def test_progress_counts_every_image_once(make_folder: MakeFolder) -> None:
    seen: list[tuple[int, int]] = []
    dataset = create_dataset("folder", make_folder(classes=2, per_class=3))
    list(verify(dataset, lambda done, total: seen.append((done, total))))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_faults_of_coco_annotations_are_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    whole = [[0, 0, 9, 0, 9, 5, 0, 5]]
    instances = {"good": (1, whole), "unknown": (2, whole), "empty": (1, []), "wide": (1, whole)}
    names = list(instances)
    for name in names:
        width = 20 if name == "wide" else 10
        Image.new("RGB", (width, 5)).save(tmp_path / "images" / f"{name}.jpg")
    content = {
        "categories": [{"id": 1, "name": "thing"}],
        "images": [
            {"id": i, "file_name": f"{name}.jpg", "height": 5, "width": 10}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": category, "segmentation": segmentation}
            for i, (category, segmentation) in enumerate(instances.values())
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    problems = found_in(tmp_path)
    assert set(problems) == {"unknown.jpg", "empty.jpg", "wide.jpg"}
    assert "category id 2" in problems["unknown.jpg"].text
    assert "no polygon" in problems["empty.jpg"].text
    assert "is 10x5, the image 20x5" in problems["wide.jpg"].text


def test_the_embedded_dataset_is_clean() -> None:
    dataset = create_dataset("shapes")
    assert [text for image in ("train/0", "test/7") for text in dataset.problems(image)] == []
