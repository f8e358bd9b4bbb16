"""Decoding image files: pixels, modes, sizes, and what goes wrong."""

import numpy as np
import pytest
from PIL import Image

from relucate.data import images
from relucate.data.images import decode
from relucate.errors import InputError


def test_pixels_are_those_of_the_files(tmp_path, write_image):
    expected = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(5)]
    result = decode(tmp_path, [f"{i}.png" for i in range(5)], None)
    assert result.pixels.dtype == np.uint8
    assert result.failed == {}
    np.testing.assert_array_equal(result.pixels, expected)


def test_the_order_survives_many_chunks(tmp_path, write_image, monkeypatch):
    monkeypatch.setattr(images, "CHUNK", 3)
    expected = [write_image(tmp_path / f"{i}.png", (2, 2), seed=i) for i in range(20)]
    seen = []
    result = decode(
        tmp_path, [f"{i}.png" for i in range(20)], None, progress=lambda *c: seen.append(c)
    )
    np.testing.assert_array_equal(result.pixels, expected)
    assert seen == [("decoding images", done, 20) for done in (3, 6, 9, 12, 15, 18, 20)]


def test_chunks_of_large_images_are_short(tmp_path, write_image, monkeypatch):
    """A process holds the pixels of a chunk."""
    monkeypatch.setattr(images, "_CHUNK_BYTES", 1000)
    for i in range(3):
        write_image(tmp_path / f"{i}.png", (20, 10), seed=i)
    seen = []
    for size in ((12, 12), (40, 40)):  # 432 and 4,800 bytes
        decode(tmp_path, ["0.png", "1.png", "2.png"], size, progress=lambda *c: seen.append(c[1]))
    assert seen == [2, 3, 1, 2, 3]


def test_all_gray_files_have_one_channel(tmp_path, write_image):
    expected = [write_image(tmp_path / f"{i}.png", mode="L", seed=i) for i in range(2)]
    result = decode(tmp_path, ["0.png", "1.png"], None)
    np.testing.assert_array_equal(result.pixels[..., 0], expected)
    assert result.pixels.shape == (2, 6, 5, 1)


def test_one_coloured_file_makes_all_three_channels(tmp_path, write_image):
    gray = write_image(tmp_path / "gray.png", mode="L")
    write_image(tmp_path / "rgb.png")
    result = decode(tmp_path, ["gray.png", "rgb.png"], None)
    assert result.pixels.shape == (2, 6, 5, 3)
    np.testing.assert_array_equal(result.pixels[0], np.stack([gray] * 3, axis=-1))


def test_grayscale_is_pillows_luma(tmp_path, write_image):
    rgb = write_image(tmp_path / "rgb.png")
    result = decode(tmp_path, ["rgb.png"], None, grayscale=True)
    np.testing.assert_array_equal(
        result.pixels[0, ..., 0], np.asarray(Image.fromarray(rgb).convert("L"))
    )


def test_resizing_is_pillows_bilinear_without_cropping(tmp_path, write_image):
    big, small = write_image(tmp_path / "a.png", (20, 10)), write_image(tmp_path / "b.png", (3, 4))
    result = decode(tmp_path, ["a.png", "b.png"], (8, 6))
    for got, pixels in zip(result.pixels, (big, small), strict=True):
        expected = Image.fromarray(pixels).resize((6, 8), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(got, np.asarray(expected))


def test_different_sizes_are_refused_with_both_names(tmp_path, write_image):
    for name, size in (("a.png", (6, 5)), ("b.png", (6, 5)), ("c.png", (9, 7)), ("d.png", (8, 8))):
        write_image(tmp_path / name, size)
    what = r"a\.png is 6 x 5 but c\.png is 9 x 7 .* 2 of 4 differ .*--size 5"
    with pytest.raises(InputError, match=what):
        decode(tmp_path, ["a.png", "b.png", "c.png", "d.png"], None)


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(tmp_path, write_image, mode):
    rgb = Image.fromarray(write_image(tmp_path / "rgb.png"))
    image = rgb.convert(mode)
    image.save(tmp_path / "other.tiff")
    with Image.open(tmp_path / "other.tiff") as written:
        if written.mode != mode:
            pytest.skip(f"this version of Pillow can't write a TIFF file in {mode}")
    result = decode(tmp_path, ["other.tiff"], None)
    np.testing.assert_array_equal(result.pixels[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_other_gray_modes_have_one_channel(tmp_path, write_image, mode):
    gray = Image.fromarray(write_image(tmp_path / "gray.png", mode="L"))
    image = gray.convert(mode)
    image.save(tmp_path / "other.png")
    result = decode(tmp_path, ["other.png"], None)
    np.testing.assert_array_equal(result.pixels, np.asarray(image.convert("L"))[None, ..., None])


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path, write_image):
    rgb = Image.fromarray(write_image(tmp_path / "rgb.png"))
    palette = rgb.convert("P")
    palette.save(tmp_path / "p.png", transparency=bytes(range(200)))
    result = decode(tmp_path, ["p.png"], None)
    np.testing.assert_array_equal(result.pixels[0], np.asarray(palette.convert("RGB")))


def test_deep_pixels_are_refused_rather_than_clipped(tmp_path, write_image):
    Image.fromarray(np.full((6, 5), 40000, np.uint16)).save(tmp_path / "deep.png")
    write_image(tmp_path / "rgb.png")
    result = decode(tmp_path, ["deep.png", "rgb.png"], None)
    assert list(result.failed) == [0]
    assert "expected 8 bits per channel" in result.failed[0]


def test_each_failed_file_has_its_reason(tmp_path, write_image):
    write_image(tmp_path / "good.jpg", (40, 40))
    content = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    paths = ["cut.jpg", "text.jpg", "empty.jpg", "gone.jpg", "good.jpg"]
    failed = decode(tmp_path, paths, None).failed
    assert list(failed) == [0, 1, 2, 3]
    assert "truncated" in failed[0]
    assert (failed[1], failed[2]) == ("not an image", "an empty file")
    assert "No such file" in failed[3]
    assert str(tmp_path) not in failed[3]


def test_a_broken_first_file_does_not_set_the_size(tmp_path, write_image):
    write_image(tmp_path / "a.jpg", (40, 40))
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    expected = write_image(tmp_path / "b.png", (6, 5))
    result = decode(tmp_path, ["a.jpg", "b.png"], None)
    assert list(result.failed) == [0]
    np.testing.assert_array_equal(result.pixels[1], expected)


def test_a_decompression_bomb_fails_instead_of_filling_the_memory(
    tmp_path, write_image, monkeypatch
):
    write_image(tmp_path / "bomb.png", (50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    failed = decode(tmp_path, ["bomb.png"], (4, 4)).failed
    assert "decompression bomb" in failed[0]


def test_pillows_warnings_are_not_the_users(tmp_path, write_image, monkeypatch):
    expected = write_image(tmp_path / "large.png", (50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # above it Pillow warns, above twice fails
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "large.png").close()
    result = decode(tmp_path, ["large.png"], None)
    np.testing.assert_array_equal(result.pixels[0], expected)


def test_more_than_fits_into_memory_is_refused(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(InputError, match=r"2 images of 32768 x 32768 need 6 GiB .*--size"):
        decode(tmp_path, ["a", "b"], (32768, 32768))


def test_only_image_formats_that_are_meant_are_opened(tmp_path, write_image):
    write_image(tmp_path / "good.png", size=(4, 4))
    (tmp_path / "bad.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    )
    found = decode(tmp_path, ["good.png", "bad.png"], (4, 4))
    assert found.failed == {1: "not an image"}


def test_dropped_transparency_is_counted(tmp_path):
    from PIL import Image

    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "b.png")
    assert decode(tmp_path, ["a.png", "b.png"], None).transparent == 1
