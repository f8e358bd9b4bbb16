"""One image file decoded into the bytes of its pixels, here or in a process that does only that.

As in Keras and torchvision, orientation tags are not applied, transparency is dropped (with a
note), and an animation gives its first frame. It imports only Pillow, and nothing of ours: run as a
file, it is ready in a tenth of a second. Called by `images` and `decoders`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

GRAY = frozenset({"1", "L", "LA", "La"})  # Pillow modes without colour, at most 8 bits deep
# Pillow reads more formats: an EPS would start Ghostscript; a PDF or a font isn't a photograph.
FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
READY = "relucate decodes"  # the first line of a process that is ready


class Form(NamedTuple):
    """What all files become: uint8 (height, width, channels). resize: others are made to fit."""

    height: int
    width: int
    channels: int
    resize: bool

    @property
    def size(self) -> int:
        """The number of bytes of an image."""
        return self.height * self.width * self.channels


class Outcome(NamedTuple):
    """One file: has it colour, and transparency; its (height, width) if wrong; why it failed."""

    colour: bool = False
    transparent: bool = False
    size: tuple[int, int] | None = None
    problem: str = ""


def decoded(path: str, form: Form) -> tuple[Outcome, bytes]:
    """Return what the file at `path` is, and its pixels in this form, none if it failed."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if too_deep(image):
                problem = (
                    f"{image.mode} pixels; expected 8 bits per channel (npz:PATH takes arrays of "
                    "floats)"
                )
                return Outcome(problem=problem), b""
            if not form.resize and image.size != (form.width, form.height):
                image.load()  # a broken file is reported as broken, not by the size that it claims
                return Outcome(size=(image.height, image.width)), b""
            flat = image.convert("L" if form.channels == 1 else "RGB")
            if flat.size != (form.width, form.height):
                flat = flat.resize((form.width, form.height), Image.Resampling.BILINEAR)
            return Outcome(image.mode not in GRAY, image.has_transparency_data), flat.tobytes()
    except Exception as error:  # Pillow's decoders raise many kinds of errors on broken files
        return Outcome(problem=_reason(error, path)), b""


def too_deep(image: Any) -> bool:
    """Return whether pixels have 16 or 32 bits (modes I, I;16, F): converting would clip them."""
    return image.mode[0] in "IF"


def _reason(error: Exception, path: str) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image" if os.path.getsize(path) else "an empty file"
    return (str(error) or type(error).__name__).replace(path, os.path.basename(path))


def limits() -> list[Any]:
    """Return what the user may have set in Pillow, for another process."""
    from PIL import Image, ImageFile

    return [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]


def _set_limits(given: Sequence[Any]) -> None:
    from PIL import Image, ImageFile

    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = given


def main() -> None:
    """Answer lines of paths with a line of outcomes and the pixels, until the input ends.

    The first line has the form and the limits; a file that failed has zeros for its pixels.
    """
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints doesn't write into the answers
    answers.write(f"{READY}\n".encode())
    answers.flush()
    hello = sys.stdin.buffer.readline()
    if not hello:
        return
    form, given = json.loads(hello)
    form = Form(*form)
    _set_limits(given)
    nothing = bytes(form.size)
    for line in sys.stdin.buffer:
        found = [decoded(path, form) for path in json.loads(line)]
        answers.write(json.dumps([outcome for outcome, _ in found]).encode() + b"\n")
        answers.writelines(pixels or nothing for _, pixels in found)
        answers.flush()


if __name__ == "__main__":
    main()
