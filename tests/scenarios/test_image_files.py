"""Image files as cameras and programs write them, and as attackers do."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.scenarios import ClassIncrementalScenario, image_headers
from keras_incremental.scenarios.image_files import decode_image, image_reader

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the images")
ImageOps = pytest.importorskip("PIL.ImageOps")

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
PALETTE = Image.fromarray(PIXELS).quantize(16)
PALETTE_RGB = np.asarray(PALETTE.convert("RGB"))
OPTIONS = {"JPEG": {"quality": 90}, "PNG": {}, "WEBP": {"lossless": True}}
if int(tf.__version__.split(".")[1]) < 20:  # decodes no WebP
    del OPTIONS["WEBP"]


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(orientation, endian="<"):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0131] = "maker", "software"
    exif[0x0112] = orientation
    return exif


@pytest.fixture(scope="module", name="decode")
def _decode():
    """The graph of both training and serving."""
    spec = [tf.TensorSpec((), tf.string)]
    return {
        channels: tf.function(
            lambda data, channels=channels: decode_image(data, channels),
            input_signature=spec,
            autograph=False,
        )
        for channels in (1, 3)
    }


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("endian", ["<", ">"])
def test_images_are_turned_as_their_exif_says(decode, kind, endian):
    image, options = Image.fromarray(PIXELS), OPTIONS[kind]
    stored = decode[3](encoded(image, kind, **options)).numpy()
    for orientation in range(1, 9):
        exif = with_orientation(orientation, endian)
        found = decode[3](encoded(image, kind, exif=exif, **options))
        expected = Image.fromarray(stored)
        expected.getexif()[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(expected))
        np.testing.assert_array_equal(found, expected)


def test_training_and_serving_turn_alike(decode, tmp_path):
    (tmp_path / "cat").mkdir()
    for orientation in range(1, 9):
        content = encoded(
            Image.fromarray(PIXELS),
            "JPEG",
            exif=with_orientation(orientation),
        )
        (tmp_path / "cat" / f"{orientation}.jpg").write_bytes(content)
    task = ClassIncrementalScenario.from_directory(
        tmp_path, (9, 7), classes_per_task=1, test_path=tmp_path
    )[0]
    upright = decode[3](encoded(Image.fromarray(PIXELS), "JPEG"))
    trained_on = [image for image, _ in task.test]
    np.testing.assert_array_equal(trained_on[0], upright)
    np.testing.assert_array_equal(trained_on[2], upright[::-1, ::-1])


@pytest.mark.parametrize("cut", [2, 9, 12, 20])
def test_exif_that_makes_no_sense_is_passed_over(decode, cut):
    image = Image.fromarray(PIXELS)
    exif = with_orientation(6).tobytes()
    plain = decode[3](encoded(image, "JPEG"))
    for damaged in (exif[:cut], exif[:cut] + b"\xff" * 40):
        content = encoded(image, "JPEG", exif=damaged)
        np.testing.assert_array_equal(decode[3](content), plain)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
@pytest.mark.parametrize("transparency", [{}, {"transparency": 3}], ids=str)
def test_palettes_give_their_colours(decode, kind, transparency):
    content = encoded(PALETTE, kind, **transparency)
    np.testing.assert_array_equal(decode[3](content), PALETTE_RGB)
    grey = np.asarray(PALETTE.convert("RGB").convert("L"))[..., None]
    np.testing.assert_allclose(decode[1](content), grey, atol=1)


def test_a_gif_with_a_comment_before_it_gives_its_colours(decode):
    content = encoded(
        PALETTE, "GIF", transparency=3, comment=b"!\xf9\x04 " * 99
    )
    np.testing.assert_array_equal(decode[3](content), PALETTE_RGB)


def png_of(width, height):
    """A whole PNG of any size that holds no pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        size = struct.pack(">I", len(content))
        return size + kind + content + struct.pack(">I", checksum)

    start = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + pixels
        + chunk(b"IEND", b"")
    )  # fmt: skip


def huge(kind):
    if kind == "PNG":
        return png_of(2**15, 2**15)
    content = bytearray(encoded(PALETTE.convert("RGB"), kind))
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", 65500, 65500)
    if kind == "GIF":
        content[6:10] = b"\xff" * 4
    if kind == "BMP":
        content[18:26] = struct.pack("<ii", 2**15, -(2**15))
    if kind == "WEBP":
        canvas = b"VP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x7f\0" * 2
        content[12:12] = canvas
    return bytes(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_too_many_pixels_are_refused_before_they_are_decoded(decode, kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decode[3](huge(kind))


@pytest.mark.slow
def test_an_image_too_long_to_be_resized_is_named(tmp_path):
    path = tmp_path / "long.png"
    Image.new("L", (1, 60_000)).save(path)
    with pytest.raises(ValueError, match=rf"{path}.*too long"):
        image_reader((224, 224), 3)(str(path))


def test_other_formats_are_refused_in_training_and_serving(decode, tmp_path):
    content = encoded(Image.fromarray(PIXELS), "TIFF")
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG"):
        decode[3](content)
    jpeg_xl = b"\xff\x0a" + bytes(100)  # TensorFlow would decode it
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG"):
        decode[3](jpeg_xl)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jxl").write_bytes(jpeg_xl)
    with pytest.raises(ValueError, match=r"a\.jxl"):
        scenario_of(tmp_path)


def scenario_of(folder, **options):
    return ClassIncrementalScenario.from_directory(
        folder, 4, classes_per_task=1, test_path=folder, **options
    )


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """Two classes, with one image of three cut off."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(PIXELS).save(tmp_path / name / f"{index}.png")
    broken = tmp_path / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    return tmp_path


def test_what_cannot_be_decoded_is_named_when_it_is_read(folder):
    scenario = scenario_of(folder)
    assert len([*scenario[0].test]) + len([*scenario[1].test.take(1)]) == 4
    with pytest.raises(Exception, match=rf"{folder}/dog/1\.png.* cannot be"):
        list(scenario[0].test.concatenate(scenario[1].test))


def test_what_cannot_be_decoded_is_counted_and_listed_if_skipped(folder):
    (folder / "dog" / "notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match="2 of 7 files are left out") as notes:
        scenario = scenario_of(folder, on_error="skip")
    text = str(notes[0].message)
    assert f"{folder}/dog/1.png" in text and f"{folder}/dog/notes.txt" in text
    tasks = {task.class_names[0]: task for task in scenario}
    assert len([*tasks["dog"].train]) == len(tasks["dog"].train) == 2
    assert len([*tasks["cat"].train]) == 3


def test_a_class_of_which_nothing_can_be_read_is_named(folder):
    for index in (0, 2):
        (folder / "dog" / f"{index}.png").write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="3 of 6"),
        pytest.raises(ValueError, match=r"class folders \['dog'\].*Add"),
    ):
        scenario_of(folder, on_error="skip")


def test_another_way_with_errors_is_refused(folder):
    with pytest.raises(ValueError, match=r"on_error='ignore'.*'raise' or"):
        scenario_of(folder, on_error="ignore")


def test_only_regular_files_are_opened(folder):
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(ValueError, match=rf"{folder}/cat/pipe\.png' is no reg"):
        scenario_of(folder)
    (folder / "cat" / "pipe.png").unlink()
    (folder / "cat" / "nowhere.png").symlink_to(folder / "nowhere")
    with pytest.raises(ValueError, match=rf"{folder}/cat/nowhere\.png' is no"):
        scenario_of(folder)
    (folder / "cat" / "nowhere.png").unlink()
    (folder / "cat" / "link.png").symlink_to(folder / "cat" / "0.png")
    assert sum(len(task.train) for task in scenario_of(folder)) == 7


@pytest.mark.parametrize("place", [b"cat/b\xe4r.png", b"b\xe4r"])
def test_names_that_are_not_utf_8_are_to_be_changed(folder, place):
    path = os.path.join(os.fsencode(folder), place)
    if place.endswith(b".png"):
        with open(path, "wb") as file:
            file.write((folder / "cat" / "0.png").read_bytes())
    else:
        os.mkdir(path)
    with pytest.raises(ValueError, match=r"b\\xe4r.*is not UTF-8.*Rename"):
        scenario_of(folder)


def test_the_limit_lets_a_large_photo_through():
    assert 200e6 < image_headers.MOST_PIXELS < 300e6
