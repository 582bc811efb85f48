"""Encoded images: sizes from headers, strict decoding, formats people really have."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from urbandet_ray.errors import RecordError
from urbandet_ray.frames import Frame, Image
from urbandet_ray.records.image_headers import image_size
from urbandet_ray.records.images import decode_frame, decode_image, encode_jpeg, encode_png


@pytest.fixture(scope="module")
def image() -> Image:
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def test_png_round_trip_is_exact(image: Image) -> None:
    """PNG keeps every pixel and the channel order."""
    assert np.array_equal(decode_image(encode_png(image)), image)


def test_jpeg_round_trip_is_close(image: Image) -> None:
    """JPEG keeps colours in RGB order."""
    back = decode_image(encode_jpeg(image, 95))
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - image).mean() < 6


def test_a_higher_quality_is_larger(image: Image) -> None:
    """The quality argument reaches the encoder."""
    assert len(encode_jpeg(image, 95)) > len(encode_jpeg(image, 40))


def test_sizes_from_headers(image: Image) -> None:
    """Width and height in that order, for both formats."""
    assert image_size(encode_jpeg(image)) == ("jpeg", 96, 64)
    assert image_size(encode_png(image)) == ("png", 96, 64)


def test_progressive_jpeg(image: Image) -> None:
    """Progressive files have another start-of-frame marker."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert b"\xff\xc2" in data.tobytes()
    assert image_size(data.tobytes()) == ("jpeg", 96, 64)
    assert decode_image(data.tobytes()).shape == (64, 96, 3)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_depths(image: Image, channels: int, wide: bool) -> None:
    """Grey, colour and alpha, 8 and 16 bit, all become 8-bit RGB."""
    bgr = image[..., ::-1]
    stored = {1: bgr[..., 0], 3: bgr, 4: np.dstack([bgr, np.full_like(bgr[..., :1], 9)])}[channels]
    if wide:
        stored = stored.astype(np.uint16) * 257
    _, data = cv2.imencode(".png", np.ascontiguousarray(stored))
    decoded = decode_image(data.tobytes())
    expected = image if channels > 1 else np.repeat(image[..., 2:], 3, axis=2)
    assert np.array_equal(decoded, expected)


def test_palette_png(image: Image) -> None:
    """Palette files come out in their palette's colours."""
    import io

    from PIL import Image as Pillow

    picture = Pillow.fromarray(image).quantize(16)
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert np.array_equal(decode_image(file.getvalue()), np.asarray(picture.convert("RGB")))


def test_grey_jpeg(image: Image) -> None:
    """One channel becomes three equal ones."""
    _, data = cv2.imencode(".jpg", image[..., 0])
    decoded = decode_image(data.tobytes())
    assert decoded.shape == (64, 96, 3)
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_cmyk_jpeg(image: Image) -> None:
    """Print colours, inverted as Adobe stores them, come out as the picture they show."""
    import io

    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(image).convert("CMYK").save(file, "JPEG", quality=95)
    decoded = decode_image(file.getvalue())
    assert np.abs(decoded.astype(int) - image).mean() < 3
    with pytest.raises(RecordError, match=r"undecodable-image: .* is damaged: Premature end"):
        decode_image(file.getvalue()[: len(file.getvalue()) * 2 // 3])


def test_orientation_is_ignored(image: Image) -> None:
    """An EXIF orientation does not turn the pixels the boxes refer to."""
    data = encode_jpeg(image)
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert image_size(turned) == ("jpeg", 96, 64)
    assert np.array_equal(decode_image(turned), decode_image(data))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
def test_truncated_images_are_errors(image: Image, share: float, encode) -> None:  # type: ignore[no-untyped-def]
    """Never a half-grey picture: any cut is undecodable-image."""
    data = encode(image)
    with pytest.raises(RecordError, match=r"undecodable-image: the (JPEG|PNG|image)"):
        decode_image(data[: int(len(data) * share)])


def test_a_damaged_png_names_the_chunk(image: Image) -> None:
    """A flipped byte fails the chunk's own checksum."""
    data = bytearray(encode_png(image))
    data[len(data) // 2] ^= 8
    with pytest.raises(RecordError, match=r"the PNG's b'IDAT' chunk at byte \d+ is damaged"):
        decode_image(bytes(data))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_huge_headers_are_refused_before_allocation(image: Image, kind: str) -> None:
    """30,000 x 30,000 in the header of a small file: image-too-large, at once."""
    data = (
        png_header(30_000, 30_000) + bytes(50)
        if kind == "png"
        else with_size(encode_jpeg(image), 30_000, 30_000)
    )
    assert image_size(data) == (kind, 30_000, 30_000)
    with pytest.raises(
        RecordError, match=r"image-too-large: the header says 30000x30000 pixels; at most 100000000"
    ):
        decode_image(data)


def test_the_pixel_limit_is_the_callers(image: Image) -> None:
    """max_pixels is inclusive."""
    assert decode_image(encode_jpeg(image), max_pixels=96 * 64).shape == (64, 96, 3)
    with pytest.raises(RecordError, match="at most 6143 are decoded"):
        decode_image(encode_jpeg(image), max_pixels=96 * 64 - 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is empty: 0 bytes"),
        (b"GIF89a....", "the GIF of 10 bytes is damaged"),
        (b"RIFF1234WEBP", "the WebP of 12 bytes is damaged"),
        (b"BM..", "the BMP of 4 bytes is damaged"),
        (b"II*\0....", "the TIFF of 8 bytes is damaged"),
        (
            b"\0\0\0\x18ftypheic",
            "the image is a HEIC .*; expected JPEG, PNG, BMP, GIF, WebP or TIFF",
        ),
        (b"hello world", r"the image begins with b'hello wo'; expected JPEG, PNG, BMP, GIF"),
        (b"\xff\xd8", "the JPEG of 2 bytes has no frame header"),
        (b"\x89PNG\r\n\x1a\n", "the PNG of 8 bytes has no header"),
        (png_header(0, 5), "the header says 0x5 pixels"),
    ],
)
def test_other_bytes_are_named(data: bytes, message: str) -> None:
    """The message says what the bytes look like."""
    with pytest.raises(RecordError, match=message):
        image_size(data)


STARTS = [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", png_header(9, 9), b"GIF89a", b"II*\0", b"BM"]


@given(st.sampled_from([*STARTS, b"RIFF\x20\0\0\0WEBPVP8 "]), st.binary())
def test_any_bytes_are_decoded_or_refused(start: bytes, rest: bytes) -> None:
    """Nothing but RecordError comes out of a decoder."""
    try:
        assert decode_image(start + rest, max_pixels=10_000).ndim == 3
    except RecordError as error:
        assert error.reason in ("undecodable-image", "image-too-large")


def test_raw_frames_are_views(image: Image) -> None:
    """A raw frame is its bytes, without a copy."""
    frame = Frame("f", "s", image.tobytes(), "raw", (96, 64))
    assert np.array_equal(decode_frame(frame), image)
    assert not decode_frame(frame).flags.owndata


@pytest.mark.parametrize(
    ("size_wh", "message"),
    [(None, "a raw frame without its size"), ((96, 63), "18432 raw bytes are not 96x63")],
)
def test_raw_frames_of_another_size(
    image: Image, size_wh: tuple[int, int] | None, message: str
) -> None:
    """Raw bytes must fit the stated size."""
    with pytest.raises(RecordError, match=message):
        decode_frame(Frame("f", "s", image.tobytes(), "raw", size_wh))


@pytest.mark.realdata
def test_street_photos_decode_as_opencv_does(realdata: Path) -> None:
    """17 photos of odd sizes: the same size and, but for rounding, pixels as OpenCV's."""
    paths = sorted((realdata / "coco_street").glob("*.jpg"))
    assert len(paths) == 17
    for path in paths:
        data = path.read_bytes()
        ours = decode_image(data)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        assert image_size(data)[1:] == (ours.shape[1], ours.shape[0])
        assert np.abs(ours.astype(int) - theirs).mean() < 1
