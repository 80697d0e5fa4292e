"""Masks as people draw and export them, boxes and points: what becomes of them is 1, 0 or 255."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss_bench.errors import FssBenchError
from fss_bench.own_masks import box_mask, file_mask, points_mask, split_value

DRAWN = np.array([[0, 0, 255], [0, 255, 255]], np.uint8)
OBJECT = [[0, 0, 1], [0, 1, 1]]


def read(file: Path, value: int | None = None, several: bool = False) -> list[list[int]]:
    with Image.open(file) as picture:
        picture.load()
        mask = file_mask(picture, file.name, value, several)
    assert mask.dtype == np.uint8
    return mask.tolist()


def refusal(file: Path, value: int | None = None, several: bool = False) -> str:
    with pytest.raises(FssBenchError) as caught:
        read(file, value, several)
    text = str(caught.value)
    assert file.name in text
    assert "\n" not in text
    return text


def save(file: Path, values: object, mode: str | None = None) -> Path:
    picture = Image.fromarray(np.array(values, np.uint8))
    (picture.convert(mode) if mode else picture).save(file)
    return file


def save_palette(file: Path, values: object, colours: list[list[int]]) -> Path:
    picture = Image.fromarray(np.array(values, np.uint8))
    picture.putpalette([part for colour in colours for part in colour])
    assert picture.mode == "P"
    picture.save(file)
    return file


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_black_and_white_is_background_and_object_in_every_mode(tmp_path: Path, mode: str) -> None:
    assert read(save(tmp_path / "m.png", DRAWN, mode)) == OBJECT


@pytest.mark.parametrize("several", [False, True])
def test_an_index_map_has_255_ignored(tmp_path: Path, several: bool) -> None:
    values = [[0, 8, 8, 255], [0, 0, 8, 8]]
    wanted = [[0, 1, 1, 255], [0, 0, 1, 1]]
    assert read(save(tmp_path / "m.png", values), several=several) == wanted
    voc = [[i, 0, 255 - i] for i in range(256)]
    assert read(save_palette(tmp_path / "p.png", values, voc), several=several) == wanted


def test_several_values_are_one_object_only_where_there_is_one_way(tmp_path: Path) -> None:
    file = save(tmp_path / "m.png", [[0, 3, 8, 0]])
    assert read(file) == [[0, 1, 1, 0]]
    assert "name the one that is the object: m.png#3" in refusal(file, several=True)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(8, [0, 0, 1, 255]), (3, [0, 1, 0, 255]), (255, [0, 0, 0, 1])],
)
def test_a_named_value_is_the_object(tmp_path: Path, value: int, wanted: list[int]) -> None:
    file = save(tmp_path / "m.png", [[0, 3, 8, 255]])
    assert read(file, value) == [wanted]
    assert read(file, value, several=True) == [wanted]


@pytest.mark.parametrize("value", [0, 7])
def test_a_named_value_that_is_not_there(tmp_path: Path, value: int) -> None:
    file = save(tmp_path / "m.png", [[0, 3, 8, 255]])
    assert refusal(file, value) == f"mask m.png has no pixel of value {value}: it holds 3, 8, 255"


def test_a_palette_of_black_and_white_is_read_as_it_looks(tmp_path: Path) -> None:
    white_first = save_palette(
        tmp_path / "a.png", [[0, 1, 1], [1, 0, 0]], [[255] * 3, [0] * 3, [9, 9, 9]]
    )
    assert read(white_first) == [[1, 0, 0], [0, 1, 1]]
    black_first = save_palette(tmp_path / "b.png", [[0, 1, 1]], [[0] * 3, [255] * 3])
    assert read(black_first) == [[0, 1, 1]]


def test_a_cut_out_is_the_object(tmp_path: Path) -> None:
    pixels = np.full((1, 3, 4), 200, np.uint8)
    pixels[0, :, 3] = (0, 127, 128)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "m.png")
    assert read(tmp_path / "m.png") == [[0, 0, 1]]


def test_soft_edges_are_refused_since_255_would_be_ignored(tmp_path: Path) -> None:
    soft = np.zeros((9, 9), np.uint8)
    soft[2:7, 2:7] = 128
    soft[3:7, 3:7] = 255  # 16 px of white, 9 of grey
    text = refusal(save(tmp_path / "m.png", soft))
    assert "255 may be the object or to be ignored: save it without soft edges" in text
    ramp = np.arange(0, 180, 10, dtype=np.uint8)[None]  # 17 greys and no white
    assert "save it without soft edges" in refusal(save(tmp_path / "r.png", ramp))
    assert read(save(tmp_path / "q.png", ramp[:, :-1])) == [[0] + [1] * 16]
    index = np.where(soft == 128, 8, soft)  # much to be ignored around a small object
    assert read(save(tmp_path / "i.png", index))[4] == [0, 0, 1, *[255] * 4, 0, 0]
    assert read(save(tmp_path / "n.png", soft), value=128)[4] == [0, 0, 1, *[255] * 4, 0, 0]


@pytest.mark.parametrize(
    ("mode", "colour", "said"),
    [
        ("RGB", (255, 0, 0), "has colours"),
        ("RGBA", (255, 0, 0, 255), "has colours"),
        ("I;16", 255, "mode I;16"),
        ("L", 0, "has no pixel of the object"),
        ("1", 0, "has no pixel of the object"),
        ("RGBA", (255, 255, 255, 0), "has no pixel of the object"),
    ],
)
def test_what_tells_no_object_is_refused(
    tmp_path: Path, mode: str, colour: object, said: str
) -> None:
    Image.new(mode, (4, 3), colour).save(tmp_path / "m.png")
    assert said in refusal(tmp_path / "m.png")


def test_a_jpeg_is_no_mask(tmp_path: Path) -> None:
    Image.fromarray(DRAWN).save(tmp_path / "m.jpg")
    text = refusal(tmp_path / "m.jpg")
    assert text == "mask m.jpg is a JPEG picture, whose values are not exact: save it as PNG"


def test_a_box_ends_before_its_second_corner() -> None:
    mask = box_mask("1,0,3,2", (3, 4))
    assert mask.tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert box_mask("0,0,4,3", (3, 4)).all()


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "1.5,0,2,2", "1,0,3,2,5"])
def test_a_box_written_otherwise(text: str) -> None:
    with pytest.raises(FssBenchError, match=r"write box:x0,y0,x1,y1, in whole pixels"):
        box_mask(text, (3, 4))


@pytest.mark.parametrize("text", ["0,0,5,3", "-1,0,2,2", "2,0,2,2", "3,0,2,2", "0,0,4,4"])
def test_a_box_that_is_empty_or_not_within_the_picture(text: str) -> None:
    with pytest.raises(FssBenchError, match="is not within the picture, which is 4x3"):
        box_mask(text, (3, 4))


def test_points_on_and_off_the_object() -> None:
    mask = points_mask("3,0;1,2/0,0", (3, 4))
    assert mask.tolist() == [[0, 255, 255, 1], [255] * 4, [255, 1, 255, 255]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,1", "none off the object"),
        ("1,1/", "write points:x,y;x,y/x,y"),
        ("/1,1", "write points:x,y;x,y/x,y"),
        ("1/0,0", "write points:x,y;x,y/x,y"),
        ("4,0/0,0", "point 4,0 is not within the picture, which is 4x3"),
        ("1,1/0,-1", "point 0,-1 is not within"),
        ("1,1/1,1", "point 1,1 is both on the object and off it"),
    ],
)
def test_points_that_cannot_be_used(text: str, said: str) -> None:
    with pytest.raises(FssBenchError) as caught:
        points_mask(text, (3, 4))
    assert said in str(caught.value)


def test_the_value_behind_a_file_name(tmp_path: Path) -> None:
    assert split_value("a.png") == (Path("a.png"), None)
    assert split_value("b/a.png#12") == (Path("b/a.png"), 12)
    assert split_value("a#b.png") == (Path("a#b.png"), None)
    file = tmp_path / "a#1"
    file.write_bytes(b"")
    assert split_value(str(file)) == (file, None)
