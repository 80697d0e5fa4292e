"""Segmenting one's own pictures: what evaluation computes, and nothing written by mistake."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import write_checkpoint
from PIL import Image
from test_cli import complaint, fss_bench
from torch import Tensor, nn

from fss_bench import (
    Compute,
    Prediction,
    Predictor,
    ResultStore,
    create_backbone,
    create_dataset,
    create_method,
    evaluate,
    predict,
)
from fss_bench.dataset import SegDataset
from fss_bench.errors import FssBenchError
from fss_bench.own_pictures import read_picture, read_supports
from fss_bench.prediction_files import find_queries, plan_targets
from fss_bench.report.sheet import COLOURS

TINY = ["--backbone", "test_resnet", "--weights", "none", "--option", "input_size=64"]


class Colour(nn.Module):
    """Distance to the mean colours of background and ways; no encode, so pixels are kept."""

    input_size = 48

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        means = [
            (support * m).sum((2, 4, 5)) / (m.sum((2, 4, 5)) + 1e-5)
            for m in ((masks == value).float()[:, :, :, None] for value in (0, 1))
        ]
        prototypes = torch.cat([means[0].mean(1, keepdim=True), means[1]], dim=1)
        return -30 * (query[:, None] - prototypes[..., None, None]).square().sum(2)


class Fixed(nn.Module):
    """Logits that depend on nothing, [1 + N, h, w]."""

    input_size = 4

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        return self.logits[None]


@pytest.fixture(scope="module")
def shapes() -> SegDataset:
    return create_dataset("shapes")


@pytest.fixture(scope="module")
def panet() -> nn.Module:
    backbone = create_backbone("tf_efficientnet_lite0", weights="packaged")
    return create_method("panet", backbone, input_size=96)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """a, b and q: a red square on blue, 40 x 30, and masks of a and b."""
    for name, left in (("a", 4), ("b", 20), ("q", 12)):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[..., 2] = 200
        pixels[5:15, left : left + 10] = (220, 10, 10)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, left : left + 10] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}-mask.png")
    return tmp_path


def command(folder: Path, *more: object, supports: str = "a") -> list[object]:
    """`predict` of q.png in a folder, to out.png there."""
    shown: list[object] = []
    for name in supports:
        shown += ["--support", folder / f"{name}.png", "--mask", folder / f"{name}-mask.png"]
    asked = ["--query", folder / "q.png", "-o", folder / "out.png"]
    return ["predict", "panet", *TINY, "--quiet", *shown, *asked, *more]


def save_episode(shapes: SegDataset, row: Any, folder: Path) -> dict[str, list[str]]:
    """The files of an episode as a user has them: support, mask and way, and the query."""
    found: dict[str, list[str]] = {"support": [], "mask": [], "way": []}
    for class_id, images in zip(row.class_ids, row.supports, strict=True):
        for image in images:
            stem = folder / f"{row.index}-{len(found['way'])}"
            Image.fromarray(shapes.load_image(image)).save(f"{stem}.png")
            Image.fromarray(shapes.load_labels(image)).save(f"{stem}-labels.png")
            found["support"].append(f"{stem}.png")
            found["mask"].append(f"{stem}-labels.png#{class_id}")
            found["way"].append(shapes.class_names[class_id])
    Image.fromarray(shapes.load_image(row.query)).save(folder / f"q{row.index}.png")
    return found


@pytest.mark.parametrize("kind", ["panet", "colours"])
@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (1, 3), (2, 2)])
def test_labels_are_those_that_evaluate_saves(
    kind: str, ways: int, shots: int, panet: nn.Module, shapes: SegDataset, tmp_path: Path
) -> None:
    method = panet if kind == "panet" else Colour()
    setting = {"fold": 1, "ways": ways, "shots": shots, "episodes": 4}
    run = evaluate(method, shapes, **setting, store=ResultStore(tmp_path), save_predictions=True)
    assert run.path is not None
    foreground = 0
    for row in run.episodes.itertuples():
        files = save_episode(shapes, row, tmp_path)
        query = tmp_path / f"q{row.index}.png"
        found = predict(method, files["support"], files["mask"], query, ways=files["way"])
        saved = np.array(Image.open(run.path / "predictions" / f"{row.index}.png"))
        assert found.labels.dtype == np.uint8
        assert np.array_equal(found.labels, saved)
        assert list(found.ways) == [shapes.class_names[c] for c in row.class_ids]
        foreground += np.count_nonzero(saved)
    assert foreground


def test_the_command_writes_what_evaluate_saves(
    panet: nn.Module, shapes: SegDataset, tmp_path: Path
) -> None:
    setting = {"fold": 0, "ways": 2, "shots": 1, "episodes": 2}
    run = evaluate(panet, shapes, **setting, store=ResultStore(tmp_path), save_predictions=True)
    assert run.path is not None
    row = next(run.episodes.itertuples())
    files = save_episode(shapes, row, tmp_path)
    given = [part for flag, values in files.items() for v in values for part in (f"--{flag}", v)]
    model = ["--backbone", "tf_efficientnet_lite0", "--weights", "packaged"]
    where = ["--query", tmp_path / "q0.png", "-o", tmp_path / "out.png"]
    fss_bench("predict", "panet", *model, "--option", "input_size=96", *given, *where)
    saved = np.array(Image.open(run.path / "predictions" / "0.png"))
    assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), saved)


def test_share_and_score_by_hand() -> None:
    logits = np.zeros((3, 4, 4), np.float32)
    logits[1, :2] = np.log(3)  # 8 px of the first way: 1 : 3 : 1
    logits[2, 3, 0] = np.log(8)  # 1 px of the second: 1 : 1 : 8
    picture, mask = np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=np.uint8)
    found = predict(Fixed(logits), [picture] * 2, [mask] * 2, picture, ways=["cat", "dog"])
    assert found.labels.tolist() == [[1] * 4, [1] * 4, [0] * 4, [2, 0, 0, 0]]
    assert found.probabilities.shape == (3, 4, 4)
    assert found.probabilities[:, 0, 0] == pytest.approx([0.2, 0.6, 0.2])
    assert found.share == {"cat": 0.5, "dog": 1 / 16}
    assert found.score == pytest.approx((8 * 0.8 + 0.9) / 9)


def test_nothing_found_has_no_score() -> None:
    nothing = Prediction(np.zeros((2, 2), np.uint8), np.ones((2, 2, 2), np.float32), ("object",))
    assert nothing.score is None
    assert nothing.share == {"object": 0.0}


def test_queries_keep_their_size_and_do_not_depend_on_each_other(pictures: Path) -> None:
    shown = read_supports([pictures / "a.png"], [str(pictures / "a-mask.png")])
    predictor = Predictor(Colour(), shown)
    small = np.asarray(Image.open(pictures / "q.png"))
    large = small.repeat(3, axis=0).repeat(2, axis=1)
    first, other, again = predictor(small), predictor(large), predictor(small)
    assert first.labels.shape == (30, 40)
    assert other.labels.shape == (90, 80)
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.probabilities, again.probabilities)
    assert np.argwhere(first.labels).min(axis=0).tolist() == [5, 12]  # the square
    assert np.argwhere(first.labels).max(axis=0).tolist() == [14, 21]


def test_supports_are_encoded_once(panet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = type(panet).encode
    monkeypatch.setattr(
        type(panet), "encode", lambda self, x: seen.append(len(x)) or encode(self, x)
    )
    rng = np.random.RandomState(0)
    images = [rng.randint(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(5)]
    shown = read_supports(images[:3], [np.eye(40, dtype=np.uint8)] * 3)
    predictor = Predictor(panet, shown, Compute(device="cpu"))
    found = [predictor(query) for query in images[3:]]
    assert sum(seen) == 3 + 2
    for query, one in zip(images[3:], found, strict=True):
        alone = predict(panet, images[:3], [np.eye(40, dtype=np.uint8)] * 3, query)
        assert np.array_equal(one.probabilities, alone.probabilities)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_they_are_shown(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[0, 0] = 255  # the corner where the first row and column meet
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    shown = read_picture(tmp_path / "a.png")
    corner = {  # EXIF 2.32, 4.6.4 A: where the 0th row and the 0th column are
        **{1: (0, 0), 2: (0, 15), 3: (7, 15), 4: (7, 0)},
        **{5: (0, 0), 6: (0, 7), 7: (15, 7), 8: (15, 0)},
    }[orientation]
    assert shown.shape[:2] == ((8, 16) if orientation < 5 else (16, 8))
    assert np.argwhere(shown[..., 0]).tolist() == [list(corner)]


def test_a_mask_has_the_size_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "a.jpg", exif=exif)
    for name, size in (("good", (8, 16)), ("wrong", (16, 8))):
        Image.new("L", size, 1).save(tmp_path / f"{name}.png")
    shown = read_supports([tmp_path / "a.jpg"], [tmp_path / "good.png"])
    assert shown["object"][0].mask.shape == (16, 8)
    with pytest.raises(FssBenchError, match=r"wrong.png is 16x8, its picture .*a.jpg 8x16 as it"):
        read_supports([tmp_path / "a.jpg"], [tmp_path / "wrong.png"])


def test_a_box_is_the_same_as_its_mask(pictures: Path) -> None:
    files = pictures / "a.png", pictures / "a-mask.png", pictures / "q.png"
    drawn = predict(Colour(), [files[0]], [files[1]], files[2])
    boxed = predict(Colour(), [files[0]], ["box:4,5,14,15"], files[2])
    assert np.array_equal(drawn.probabilities, boxed.probabilities)
    assert drawn.share == {"object": 100 / 1200}


def test_points_survive_a_small_input(tmp_path: Path) -> None:
    pixels = np.zeros((480, 480, 3), np.uint8)
    pixels[:240] = (250, 0, 0)  # one pixel in ten of each side reaches the input of 48
    found = predict(Colour(), [pixels], ["points:33,17/461,473"], pixels)
    assert (found.labels[:230] == 1).all()
    assert (found.labels[250:] == 0).all()


def test_ways_come_in_the_order_in_which_they_are_named(pictures: Path) -> None:
    a, b, masks = pictures / "a.png", pictures / "b.png", ["box:0,20,40,30", "box:20,5,30,15"]
    shown = read_supports([a, b, a, b], masks * 2, ["sea", "boat", "sea", "boat"])
    assert {way: [s.name for s in shots] for way, shots in shown.items()} == {
        "sea": [str(a), str(a)],
        "boat": [str(b), str(b)],
    }


@pytest.mark.parametrize(
    ("masks", "ways", "said"),
    [
        (["box:0,0,9,9"], [], "2 --support and 1 --mask: give one --mask for every --support"),
        (["box:0,0,9,9"] * 2, ["cat"], "2 --support and 1 --way: give one --way for every"),
        (["box:0,0,9,9"] * 2, ["cat", ""], "--way '': give it a name"),
    ],
)
def test_supports_masks_and_ways_go_together(
    pictures: Path, masks: Sequence[str], ways: Sequence[str], said: str
) -> None:
    with pytest.raises(FssBenchError) as caught:
        read_supports([pictures / "a.png", pictures / "b.png"], masks, ways)
    assert said in str(caught.value)


def test_ways_have_equally_many_supports(pictures: Path) -> None:
    given = [pictures / "a.png"] * 3, ["box:0,0,9,9"] * 3, ["cat", "dog", "cat"]
    with pytest.raises(FssBenchError, match=r"supports \(cat 2, dog 1\): give each 1"):
        read_supports(*given)


@pytest.mark.parametrize(
    ("picture", "mask", "said"),
    [
        (np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8), r"must be \[H, W, 3\] of uint8"),
        (np.zeros((4, 4, 3)), np.eye(4, dtype=np.uint8), "of float64"),
        (np.zeros((4, 4, 3), np.uint8), np.eye(4), r"array \[4, 4\] of float64: it must be \[H"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), "array 1 has no pixel of the"),
    ],
)
def test_arrays_of_another_form(picture: Any, mask: Any, said: str) -> None:
    with pytest.raises(FssBenchError, match=said):
        read_supports([picture], [mask])


def test_an_object_too_small_for_the_input_is_refused() -> None:
    picture, mask = np.zeros((480, 480, 3), np.uint8), np.zeros((480, 480), np.uint8)
    mask[3, 3] = 1
    with pytest.raises(FssBenchError, match="array 1 is too small: nothing is left of it at the"):
        predict(Colour(), [picture], [mask], picture)


@pytest.mark.parametrize("logits", [np.zeros((3, 4, 4)), np.full((2, 4, 4), np.nan)])
def test_wrong_logits_are_refused(logits: Any) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(FssBenchError, match="the method returned"):
        predict(Fixed(logits), [picture], [np.eye(4, dtype=np.uint8)], picture)


def test_the_command_prints_a_line_a_query_and_writes_an_overlay(pictures: Path) -> None:
    (pictures / "colour.py").write_text(PLUGIN)
    more = ["--way", "square", "--overlay", "--plugin", pictures / "colour.py"]
    words = command(pictures, *more)
    words[1] = "colour"
    done = fss_bench(*words)
    out = pictures / "out.png"
    assert done.stdout == f"{pictures / 'q.png'}  square 8.3 %  score 1.00  {out}\n"
    with Image.open(out) as picture:
        assert picture.mode == "L"
        labels = np.array(picture)
    wanted = np.zeros((30, 40), np.uint8)
    wanted[5:15, 12:22] = 1
    assert np.array_equal(labels, wanted)
    overlay = np.array(Image.open(pictures / "out-overlay.png"))
    picture = np.array(Image.open(pictures / "q.png"))
    assert np.array_equal(overlay[labels == 0], picture[labels == 0])
    assert overlay[5, 12].tolist() == list(COLOURS[0])  # the outline
    mixed = 0.45 * picture[10, 15] + 0.55 * np.array(COLOURS[0])
    assert np.abs(overlay[10, 15] - mixed).max() <= 1


PLUGIN = '''
from torch import stack

from fss_bench.method import Method, methods

@methods.register("colour")
class Colours(Method):
    """Distance to mean colours."""

    def __init__(self, backbone, input_size=None):
        super().__init__(backbone, [backbone.default_level], input_size)

    def forward(self, support, masks, query):
        mean = [
            (support * m[:, :, :, None]).sum((2, 4, 5)) / m.sum((2, 3, 4))[..., None]
            for m in ((masks == 0).float(), (masks == 1).float())
        ]
        d = [(query - m[:, 0, :, None, None]).square().sum(1) for m in mean]
        return -30 * stack(d, dim=1)
'''


def test_the_command_as_json(pictures: Path) -> None:
    folder = pictures / "out"
    more = ["--query", pictures / "b.png", "-o", folder, "--json"]
    answer = json.loads(fss_bench(*command(pictures, *more)).stdout)
    assert answer["ways"] == ["object"]
    assert [Path(p["query"]).name for p in answer["predictions"]] == ["q.png", "b.png"]
    for found in answer["predictions"]:
        labels = np.array(Image.open(found["file"]))
        assert (found["height"], found["width"]) == labels.shape == (30, 40)
        assert found["share"] == {"object": pytest.approx((labels == 1).mean())}
        assert found["overlay"] is None
    assert sorted(f.name for f in folder.iterdir()) == ["b.png", "q.png"]


def test_a_folder_of_queries(pictures: Path) -> None:
    asked = pictures / "asked"
    asked.mkdir()
    for name in ("2.png", "1.JPG"):
        Image.new("RGB", (20, 10), (200, 0, 0)).save(asked / name)
    (asked / "notes.txt").write_text("no picture")
    assert find_queries([asked]) == [asked / "1.JPG", asked / "2.png"]
    words = command(pictures, "-o", pictures / "new" / "folder")
    words[words.index(pictures / "q.png")] = asked
    lines = fss_bench(*words).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [str(asked / "1.JPG"), str(asked / "2.png")]
    assert {f.name for f in (pictures / "new" / "folder").iterdir()} == {"1.png", "2.png"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--query", "DIR/gone.jpg"], "query DIR/gone.jpg is no file: check its name"),
        (["--query", "DIR/cut.jpg"], "query DIR/cut.jpg cannot be read (OSError"),
        (["--query", "DIR/text.png"], "query DIR/text.png cannot be read (ValueError: by its"),
        (["--support", "DIR/b.png", "--mask", "DIR/none.png"], "mask DIR/none.png is no file"),
        (["--support", "DIR/b.png", "--mask", "DIR/empty.png"], "empty.png has no pixel of the ob"),
        (["--support", "DIR/b.png", "--mask", "DIR/large.png"], "large.png is 50x40, its picture"),
        (["--support", "DIR/b.png", "--mask", "box:1,2"], "--mask box:1,2: write box:x0,y0,x1,y1"),
        (["--support", "DIR/b.png"], "2 --support and 1 --mask"),
        (["--way", "a", "--way", "b"], "1 --support and 2 --way"),
        (["--query", "DIR/other/q.jpg"], "would both go to DIR/out.png/q.png"),
        (
            ["--query", "DIR/b.png", "-o", "DIR"],
            "DIR/q.png is among the inputs (DIR/q.png) and would be",
        ),
        (["-o", "DIR/a-mask.png"], "DIR/a-mask.png is among the inputs"),
        (["-o", "DIR/gone/../q.png"], "is among the inputs"),
        (["-o", "DIR/out.jpg"], "predictions are PNG files: give it a name in .png"),
        (["-o", "DIR/text.png/out.png"], "cannot write to DIR/text.png"),
        (["--query", "DIR/b.png", "-o", "DIR/text.png"], "text.png is a file: several queries nee"),
        (["--query", "DIR/nothing"], "DIR/nothing holds no pictures (.jpg, .jpeg, .png"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--option", "sale=3"], "did you mean 'scale'"),
        (["--checkpoint", "DIR/x{fold}.pth"], "there are no folds here: give the file of one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_writes_nothing(
    pictures: Path, more: list[str], said: str
) -> None:
    spoil(pictures)
    words = command(pictures)  # several queries would go to a folder out.png
    before = {f: f.read_bytes() for f in pictures.rglob("*") if f.is_file()}
    text = complaint(*words, *(m.replace("DIR", str(pictures)) for m in more))
    assert said.replace("DIR", str(pictures)) in text
    assert {f: f.read_bytes() for f in pictures.rglob("*") if f.is_file()} == before


def spoil(folder: Path) -> None:
    """Add files that cannot be used, and a second q."""
    for name in ("other", "nothing"):
        (folder / name).mkdir()
    Image.new("RGB", (20, 10)).save(folder / "other" / "q.jpg")
    noise = np.random.RandomState(0).randint(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-300])
    (folder / "text.png").write_text("no picture")
    Image.new("L", (40, 30)).save(folder / "empty.png")
    Image.new("L", (50, 40), 1).save(folder / "large.png")


def test_a_checkpoint_for_other_shots_is_refused(pictures: Path) -> None:
    file = pictures / "one-shot.safetensors"
    write_checkpoint(file, shots=(1,))
    model = ["predict", "panet", "--checkpoint", file, "--option", "input_size=64"]
    two = model + command(pictures, supports="ab")[len(TINY) + 2 :]
    assert "a 1-shot panet checkpoint: it cannot be evaluated with 2 supports" in complaint(*two)
    assert not (pictures / "out.png").exists()
    fss_bench(*model, *command(pictures)[len(TINY) + 2 :])
    assert (pictures / "out.png").exists()


def test_what_to_know_of_the_method_is_said_unless_quiet(pictures: Path) -> None:
    words = [w for w in command(pictures) if w != "--quiet"]
    words[1] = "cofcn"
    assert "cofcn is not trained" in fss_bench(*words).stderr
    assert fss_bench(*words, "--quiet").stderr == ""


def test_an_overlay_and_a_prediction_of_one_name_are_refused(tmp_path: Path) -> None:
    queries = [tmp_path / "a.jpg", tmp_path / "a-overlay.jpg"]
    plan_targets(queries, tmp_path / "out", True, overlay=False, inputs=[])
    with pytest.raises(FssBenchError, match=r"would both go to .*a-overlay.png: rename one"):
        plan_targets(queries, tmp_path / "out", True, overlay=True, inputs=[])


def test_a_full_disk_leaves_no_half_file(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fss_bench.files.os.fsync", full)
    assert "No space left" in complaint(*command(pictures))
    names = {f.name for f in pictures.iterdir()}
    assert names == {f"{n}{m}.png" for n in "abq" for m in ("", "-mask")}
