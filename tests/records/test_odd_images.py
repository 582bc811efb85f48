"""Images that a strict decoder refuses and the field decodes, and formats beside JPEG and PNG."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import exif_turn, odd_jpegs, odd_pngs, saved, smooth_picture
from PIL import Image as Pillow

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Image
from urbandet_ray.records.data_folder import read_data_folder
from urbandet_ray.records.image_headers import image_size
from urbandet_ray.records.images import decode_frame, decode_image, encode_png, frame_size
from urbandet_ray.records.orientation import exif_orientation, size_upright, turned_upright
from urbandet_ray.records.soundness import validate
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage

PICTURE = smooth_picture()
JPEGS, PNGS = odd_jpegs(PICTURE), odd_pngs(PICTURE)


def by_opencv(encoded: bytes) -> Image:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), flags), np.uint8)


@pytest.mark.parametrize("name", [name for name in JPEGS if name != "sound"])
def test_odd_jpegs_are_decoded_to_the_sound_ones_pixels(name: str) -> None:
    """OpenCV and Pillow do; the size is read, and what the strict decoder said is told."""
    doubts: list[str] = []
    decoded = decode_image(JPEGS[name], doubts=doubts)
    assert image_size(JPEGS[name]) == ("jpeg", 90, 60)
    assert np.array_equal(decoded, decode_image(JPEGS["sound"]))
    assert np.array_equal(decoded, by_opencv(JPEGS[name]))
    assert np.array_equal(decoded, Pillow.open(io.BytesIO(JPEGS[name])).convert("RGB"))
    assert len(doubts) == 1 and "is damaged" in doubts[0]


@pytest.mark.parametrize("name", [name for name in PNGS if name != "sound"])
def test_wrong_checksums_beside_the_pixels_cost_nothing(name: str) -> None:
    """libpng passes over an ancillary chunk whose checksum is wrong."""
    doubts: list[str] = []
    assert np.array_equal(decode_image(PNGS[name], doubts=doubts), PICTURE)
    assert np.array_equal(by_opencv(PNGS[name]), PICTURE)
    assert len(doubts) == 1 and "chunk at byte" in doubts[0]


def test_sound_images_raise_no_doubt() -> None:
    """The strict decoders take them."""
    doubts: list[str] = []
    for one in (JPEGS["sound"], PNGS["sound"]):
        decode_image(one, doubts=doubts)
    assert doubts == []


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("progressive", [False, True])
def test_cut_jpegs_stay_damaged(share: float, progressive: bool) -> None:
    """No decoder of the field takes a file that ends too early."""
    data = saved(PICTURE, "JPEG", progressive=progressive)
    doubts: list[str] = []
    with pytest.raises(RecordError, match=r"the JPEG of \d+ bytes is damaged: "):
        decode_image(data[: int(len(data) * share)], doubts=doubts)
    assert doubts == []


GREY = Pillow.fromarray(PICTURE).convert("L")
PALETTE = Pillow.fromarray(PICTURE).quantize(16)
OTHERS = {
    "bmp": saved(PICTURE, "BMP"),
    "bmp of greys": saved(GREY, "BMP"),
    "bmp with a palette": saved(PALETTE, "BMP"),
    "bmp of one bit": saved(GREY.convert("1"), "BMP"),
    "webp": saved(PICTURE, "WEBP"),
    "webp without loss": saved(PICTURE, "WEBP", lossless=True),
    "webp animation": saved(
        PICTURE,
        "WEBP",
        lossless=True,
        save_all=True,
        append_images=[Pillow.fromarray(255 - PICTURE)],
    ),
    "gif": saved(PALETTE, "GIF"),
    "gif animation": saved(PALETTE, "GIF", save_all=True, append_images=[GREY.quantize(9)]),
    "tiff": saved(PICTURE, "TIFF"),
    "tiff by LZW": saved(PICTURE, "TIFF", compression="tiff_lzw"),
    "tiff of pages": saved(
        PICTURE, "TIFF", save_all=True, append_images=[Pillow.fromarray(255 - PICTURE)]
    ),
    "tiff of 16 bits": cv2.imencode(".tif", PICTURE[..., 0].astype(np.uint16) * 257)[1].tobytes(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_have_opencvs_pixels(name: str) -> None:
    """The first frame of an animation, the first page of several."""
    assert image_size(OTHERS[name]) == (name.split(maxsplit=1)[0], 90, 60)
    assert np.array_equal(decode_image(OTHERS[name]), by_opencv(OTHERS[name]))


@pytest.mark.parametrize("name", OTHERS)
def test_cut_files_of_other_formats_are_damaged(name: str) -> None:
    """Never a half-grey picture; a file with all of its first frame has it."""
    data = OTHERS[name]
    for share in (0.1, 0.45):
        with pytest.raises(RecordError, match=r"undecodable-image: the (BMP|WebP|GIF|TIFF) of"):
            decode_image(data[: int(len(data) * share)])


def test_pixels_that_are_no_picture_are_named() -> None:
    """Floating point numbers have no agreed black and white."""
    data = saved(Pillow.fromarray(PICTURE[..., 0].astype(np.float32)), "TIFF")
    with pytest.raises(RecordError, match="its pixels are floating point numbers, expected 8 or"):
        decode_image(data)


def test_the_pixel_limit_holds_for_all_formats() -> None:
    """Whatever the header says is compared before anything is decoded."""
    for data in OTHERS.values():
        with pytest.raises(RecordError, match="image-too-large"):
            decode_image(data, max_pixels=90 * 60 - 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_as_pillow_turns_them(image_format: str, orientation: int) -> None:
    """All eight ways a camera can be held."""
    from PIL import ImageOps

    settings = {"lossless": True} if image_format == "WEBP" else {}
    data = saved(PICTURE, image_format, exif=exif_turn(orientation), **settings)
    found = exif_orientation(data)
    assert found == orientation
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode_image(data, orientation=found)
    assert np.array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert size_upright((90, 60), found) == (decoded.shape[1], decoded.shape[0])


def test_a_turned_jpeg_may_be_decoded_smaller() -> None:
    """The least size is that of the upright picture."""
    data = saved(smooth_picture(640, 320), "JPEG", exif=exif_turn(6))
    assert decode_image(data, orientation=6, least_wh=(80, 160)).shape == (160, 80, 3)


def test_the_turn_survives_a_damaged_text_chunk() -> None:
    """EXIF is read by itself, not by a decoder that may refuse the rest."""
    data = odd_pngs(PICTURE)["text"]
    turned = saved(PICTURE, "PNG", exif=exif_turn(8))
    at = turned.index(b"eXIf") - 4
    chunk = turned[at : at + 12 + int.from_bytes(turned[at : at + 4], "big")]
    assert exif_orientation(data[:-12] + chunk + data[-12:]) == 8


@pytest.mark.parametrize("value", [0, 9, 300])
def test_turns_that_do_not_exist_turn_nothing(value: int) -> None:
    """EXIF knows 1 to 8."""
    assert exif_orientation(saved(PICTURE, "JPEG", exif=exif_turn(value))) == 1
    assert exif_orientation(b"\xff\xd8\xff\xe1\0\x20Exif\0\0garbage garbage garbage") == 1


def test_turning_twice_comes_back() -> None:
    """Each mirrored way is its own inverse; 6 and 8 undo each other."""
    for first, second in [(2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7)]:
        assert np.array_equal(turned_upright(turned_upright(PICTURE, first), second), PICTURE)


def mixed_folder(folder: Path) -> dict[str, bytes]:
    """One picture of each kind, held sideways where that can be said."""
    files = {
        "a.jpe": saved(PICTURE, "JPEG", exif=exif_turn(6)),
        "b.jfif": JPEGS["stray bytes before the scan"],
        "c.bmp": OTHERS["bmp"],
        "d.webp": saved(PICTURE, "WEBP", lossless=True, exif=exif_turn(3)),
        "e.tif": OTHERS["tiff"],
        "f.TIFF": saved(PICTURE, "TIFF", tiffinfo={0x0112: 6}),
        "g.gif": OTHERS["gif animation"],
        "h.png": PNGS["text"],
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def test_a_folder_of_pictures_is_read_upright(tmp_path: Path) -> None:
    """Every format that people have, turned as they see it; the header tells the same size."""
    mixed_folder(tmp_path)
    (source,) = list_sources(str(tmp_path), Storage())
    frames = [record.frame for record in read_source(source, Storage())]
    assert [frame.frame_key for frame in frames if frame] == list("abcdefgh")
    shapes = []
    for frame in frames:
        assert frame is not None
        image = decode_frame(frame)
        assert frame_size(frame) == (image.shape[1], image.shape[0])
        shapes.append(image.shape[:2])
    assert shapes == [(90, 60), *[(60, 90)] * 4, (90, 60), (60, 90), (60, 90)]
    assert frames[3] is not None
    assert np.array_equal(decode_frame(frames[3]), PICTURE[::-1, ::-1])


def test_validate_tells_what_the_tolerant_decoder_took(tmp_path: Path) -> None:
    """No problem, but a line with how many, where and why."""
    mixed_folder(tmp_path)
    report = validate(read_data_folder(str(tmp_path), Storage()), Storage())
    assert report.is_clean
    assert "2 images are not quite as the format wants" in report.to_text()
    assert f"{tmp_path / 'b.jfif'} record 1: the JPEG of" in report.to_text()


def test_a_png_of_the_pixels_is_exact() -> None:
    """What is turned for a dataset is written without loss."""
    assert np.array_equal(
        decode_image(encode_png(turned_upright(PICTURE, 5))), PICTURE.swapaxes(0, 1)
    )


@pytest.mark.parametrize("length", [30, 100, 300])
def test_damaged_pixels_that_all_decode_are_decoded_and_told(length: int) -> None:
    """Zeros within the pixels of a progressive JPEG: all see the same spoilt picture."""
    data = saved(smooth_picture(320, 240), "JPEG", progressive=True)
    middle = len(data) // 2
    spoilt = data[:middle] + bytes(length) + data[middle + length :]
    doubts: list[str] = []
    decoded = decode_image(spoilt, doubts=doubts)
    assert np.array_equal(decoded, by_opencv(spoilt))
    assert np.array_equal(decoded, Pillow.open(io.BytesIO(spoilt)).convert("RGB"))
    assert len(doubts) == 1
