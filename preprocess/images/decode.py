"""Decodes an image: from encoded bytes in any common format to upright RGB pixels, a square of a given size.

This module is the definition in Pillow and NumPy. `preprocess.images.decode_graph` is the same definition as TensorFlow
operations, and gives equal pixels. The embedding pipeline and every client use the first, an exported model uses the
second, so training and serving see the same pixels. The steps, in order:

1. The content decides the format, not the name. Only the first frame of an animation is used. ICC profiles are ignored.
2. A JPEG is decoded at 1/8, 1/4 or 1/2 of its size if the shorter side keeps at least 1.25 x the size (374 for 299):
   libjpeg then computes fewer DCT coefficients, and a 12-megapixel photo costs about a quarter.
3. The mode becomes RGB. Of more than eight bits the highest eight are kept; how many bits a sample has is what the
   file says of all its samples (`_significant_bits`), never what this one image happens to contain. Alpha is composited
   over white before any resampling (in GIF, which has no alpha, transparent and uncovered pixels are black; PSD is
   composited by the program that wrote it). CMYK is `(255-c)*(255-k)//255`.
4. Pillow's `BILINEAR` resize to size x size (299 for Inception v3), a triangle filter as wide as the reduction; the
   aspect ratio is not kept. `preprocess.images.resample` computes it, with compiled loops if there are some.
5. The EXIF orientation is applied to the small square. A transpose and flips move pixels without rounding, so both
   implementations agree, and it is fast. An invalid EXIF block counts as upright. (Pillow turns a TIFF upright
   while reading it, so for TIFF this step comes before the resize. The same holds for HEIC and libheif.)

Further views of an image (`preprocess.records.views`) are made from the pixels that step 3 gives for view 0, so an
image is decoded once: step 4 resizes to the side of the view and computes only what is cut out; step 5 turns that
upright; then it may be mirrored. The square is cut out before the image is turned, since a random place is as random
after it. A JPEG that step 2 reduced has at least 1.25 x the size. Views up to 1.25 x larger than the size (crop and
scale of 10 percent: 1.21) are therefore never enlarged from a reduced picture; `benchmarks.views` measures what it
costs beyond that. Pictures of other formats that are at least 4 x larger than the view are first averaged over whole
pixels (`_REDUCING_GAP`), because each of many views of 100 megapixels would take as long as decoding.

Several backbones may want squares of several sizes (`decode_squares`). An image is decoded once for all of them, but a
JPEG that step 2 reduces more for one size than for another is decoded once for each scale, since each square has the
pixels that it has alone.

`preprocess.images.formats` has the list of formats. A RAW photo is not read: what can be decoded without developing it
is a small preview.

Any change to the pixels of any image must change the number in `IMAGE_DEFINITION`, which is stored with the embeddings.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import re
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    DdsImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    QoiImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from preprocess.images.formats import format_by_content, is_read_here, what_it_is
from preprocess.images.resample import resize
from preprocess.records.views import Distortion

try:
    import pi_heif
except ImportError:  # the optional extra `heif`
    pi_heif = None

# The size and the definition (`images.definition`) of Inception v3, the default network.
IMAGE_SIZE = 299
IMAGE_DEFINITION = f"upright-rgb-{IMAGE_SIZE}-bilinear/2"

# The largest declared size. The photo of a 108-megapixel phone passes; as a PNG, it takes 0.5 GB for a moment.
MAX_IMAGE_PIXELS = 120_000_000

# Of views but the first: how much larger than the view the picture stays when Pillow averages whole pixels before the
# resize. Measured on noise of 4000 x 3000: a third of the time, 0.8 grey levels of difference on average, at most 5.
_REDUCING_GAP = 2.0
# The EXIF orientations that are undone by swapping left and right, and top and bottom; from 5 on, a transpose follows.
# And for each orientation the one that is mirrored after it is upright.
_MIRRORS = (2, 3, 7, 8)
_FLIPS = (3, 4, 6, 7)
_MIRRORED = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 8, 8: 7}

ImageErrorReason = Literal[
    "empty_file",  # no bytes
    "not_an_image",  # no known signature: text, HTML, an archive
    "unsupported_format",  # an image, document or film of a known format that is not read: RAW photos, SVG, PDF
    "truncated",  # the bytes end too early
    "corrupt",  # a known signature, and then bytes that break the format's rules
    "too_many_pixels",  # width x height over the limit
    "unsupported_mode",  # samples without a certain meaning as grey or colour (floats), or a rare kind of a format
    "out_of_memory",  # decoding takes more memory than there is, or than a decoder process may have
    "deadline",  # decoding took too long; from `preprocess.images.isolated_decoder` only, like the next
    "decoder_crashed",  # the process that decoded it ended
]

# Decoding runs in many threads, so no call may change process-wide state; it is set once, here. The limit on pixels is
# the argument of `decode_image`. A damaged file causes one ImageError and none of Pillow's warnings. (The C library
# libtiff prints messages about a damaged TIFF. They cannot be turned off from here.)
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

# Kinds of a format that Pillow does not know, by the beginnings of its messages.
_UNKNOWN_KIND = re.compile(
    "cannot handle|unknown pixel mode|unknown data organization|unsupported|unrecognized compression|unimplemented",
    re.I,
)


# Whether libjpeg can write pixels as Pillow keeps them, 4 bytes each: an extension of libjpeg-turbo, which knows it for
# the usual processes only. The pixels are the same, and Pillow need not convert them.
_DECODES_TO_RGBX = features.check_feature("libjpeg_turbo") is True

# Chunks of a PNG file that do not decide pixels here. Pillow calls a file corrupt if one of them is large or damaged;
# the decoder of an exported model ignores them. Of an animation only the picture that every PNG reader shows is used.
_UNUSED_CHUNKS = frozenset(
    {b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL", b"fdAT"}
)

_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "PSD": PsdImagePlugin.PsdImageFile,
    "TGA": TgaImagePlugin.TgaImageFile,
    "ICO": IcoImagePlugin.IcoImageFile,
    "DDS": DdsImagePlugin.DdsImageFile,
    "QOI": QoiImagePlugin.QoiImageFile,
}
if pi_heif is not None:
    _READERS["HEIC"] = pi_heif.HeifImageFile


class ImageError(Exception):
    """The bytes cannot be decoded to pixels.

    Attributes:
        reason: one word of `ImageErrorReason`, which reports count.
        message: one line for a person.
    """

    def __init__(self, reason: ImageErrorReason, message: str) -> None:
        # Exception gets both arguments, so that the error can be pickled between processes.
        super().__init__(reason, message)
        self.reason: ImageErrorReason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclasses.dataclass(frozen=True, slots=True)
class Square:
    """A square that is made of an image: its side in pixels, and how views 1 and further of it are made."""

    size: int
    distortions: Sequence[Distortion] = ()


def jpeg_reduced_side(size: int) -> int:
    """A JPEG is decoded at a reduced scale as long as its shorter side keeps this many pixels: 1.25 times the size.

    Every 12-megapixel photo (3000 or 3024 pixels) passes at 1/8 for 299. Measured on 70 photos of 4000 x 3000 against
    decoding in full: 47.8 dB PSNR; cosine of the embeddings (MobileNet on ImageNet, centre crop, mean subtracted)
    0.999, worst 0.997, which is less than bfloat16 costs. With 2 x 299: 54.9 dB, 0.9999, worst 0.9996, at 1.25 times
    the time.
    """
    return -(-5 * size // 4)


def jpeg_scale(jpeg_size: tuple[int, int] | None, size: int) -> int:
    """By how much a JPEG is reduced while it is decoded (8, 4, 2 or 1), as Pillow's `draft` decides it.

    Args:
        jpeg_size: its width and height; None for an image of another format, which is never reduced.
        size: the side of the square that the backbone takes.
    """
    fits = 1 if jpeg_size is None else min(jpeg_size) // jpeg_reduced_side(size)
    return next(scale for scale in (8, 4, 2, 1) if scale <= max(fits, 1))


def decode_image(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, size: int = IMAGE_SIZE) -> np.ndarray:
    """Decodes an encoded image to the pixels that a backbone sees.

    Args:
        data: the bytes of one image file, of any content at all.
        max_pixels: the largest accepted width x height, as declared in the file's header.
        size: the side of the square that the backbone takes.

    Returns:
        uint8 [size, size, 3]: rows from the top, columns from the left, RGB.

    Raises:
        ImageError: something is wrong with `data`. Its content causes no other exception.
    """
    return decode_views(data, (), max_pixels=max_pixels, size=size)[0]


def decode_views(
    data: bytes, distortions: Sequence[Distortion], *, max_pixels: int = MAX_IMAGE_PIXELS, size: int = IMAGE_SIZE
) -> list[np.ndarray]:
    """Decodes an encoded image once, to the pixels of several views.

    Args:
        data: the bytes of one image file, of any content at all.
        distortions: how views 1 and further are made. Their brightness is for the engine and is not used here.
        max_pixels: the largest accepted width x height, as declared in the file's header.
        size: the side of the square that the backbone takes.

    Returns:
        For each view, view 0 first, uint8 [size, size, 3]. View 0 is what `decode_image` gives.

    Raises:
        ImageError: something is wrong with `data`. Its content causes no other exception.
    """
    return decode_squares(data, [Square(size, distortions)], max_pixels=max_pixels)


def decode_squares(data: bytes, squares: Sequence[Square], *, max_pixels: int = MAX_IMAGE_PIXELS) -> list[np.ndarray]:
    """Decodes an encoded image once, to squares of several sizes, each with its views.

    Args:
        data: the bytes of one image file, of any content at all.
        squares: the sizes, at least one, each with the views of it.
        max_pixels: the largest accepted width x height, as declared in the file's header.

    Returns:
        What `decode_views` gives for each of the squares, one after the other.

    Raises:
        ImageError: something is wrong with `data`. Its content causes no other exception.
    """
    if not data:
        raise ImageError("empty_file", "the file is empty")
    try:
        flat, orientation, jpeg_size = _decode(data, max_pixels, squares[0].size)
        if len(squares) == 1:
            return _views(flat, orientation, squares[0])
        scales = [jpeg_scale(jpeg_size, square.size) for square in squares]
        found: list[list[np.ndarray]] = [[] for _ in squares]
        # Squares of one scale together, so that one decoded picture is held at a time.
        for scale in dict.fromkeys(scales):
            of_scale = [position for position, other in enumerate(scales) if other == scale]
            if scale != scales[0]:
                flat, orientation, _ = _decode(data, max_pixels, squares[of_scale[0]].size)
            for position in of_scale:
                found[position] = _views(flat, orientation, squares[position])
        return [view for views in found for view in views]
    except ImageError:
        raise
    except Exception as error:
        # Pillow raises OSError, SyntaxError, ValueError, EOFError, MemoryError, zlib.error and more.
        message = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, MemoryError) or "out of memory" in message.lower():
            raise ImageError("out_of_memory", "decoding takes more memory than there is") from error
        if isinstance(error.__cause__, (EOFError, IndexError, struct.error)):
            # A plugin read past the end of a header. Its own message is only about buffers and indices.
            raise ImageError("truncated", "the bytes end within the header") from error
        if isinstance(error, KeyError) or isinstance(error.__cause__, KeyError):
            # Plugins look up modes and compressions in tables. The message is only the key.
            raise ImageError("unsupported_mode", f"a kind of this format that is not read: {message}") from error
        if _UNKNOWN_KIND.match(message):
            raise ImageError("unsupported_mode", message) from error
        if message.startswith("broken data stream") and _is_rare_jpeg(data):
            raise ImageError("unsupported_mode", "a lossless or hierarchical JPEG is not read") from error
        ends_early = isinstance(error, EOFError) or any(
            word in message.lower() for word in ("truncated", "end of file", "end of image", "not enough image data")
        )
        raise ImageError("truncated" if ends_early else "corrupt", message) from error


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes decoded pixels losslessly, for a client that sends them to an exported model.

    Args:
        pixels: uint8 [size, size, 3], as `decode_image` returns them.

    Returns:
        A PNG that both implementations decode to exactly `pixels`: a resize to the same size is the identity.

    Raises:
        ValueError: another shape or dtype.
    """
    if pixels.shape != (len(pixels), len(pixels), 3) or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8 [size, size, 3]. Received: {pixels.dtype} {list(pixels.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def exif_orientation(data: bytes) -> int:
    """The EXIF orientation (1 to 8) of a JPEG, PNG or WebP file; 1 where there is none or it makes no sense.

    It is read from the bytes and not by Pillow, which also takes it from other places (XMP, text chunks, joined
    segments). The graph does exactly the same steps. The first EXIF block decides.
    """
    size = len(data)
    if data[:3] == b"\xff\xd8\xff":
        start = 2
        while start + 4 <= size and data[start] == 0xFF:
            marker = data[start + 1]
            if marker == 0xFF:  # a fill byte
                start += 1
            elif marker in (0xD9, 0xDA):  # the header has ended
                break
            else:
                length = int.from_bytes(data[start + 2 : start + 4], "big")
                if marker == 0xE1 and data[start + 4 : start + 10] == b"Exif\0\0":
                    return _tiff_orientation(data[start + 4 : start + 2 + length])
                start += 2 + length
    elif data[:8] == b"\x89PNG\r\n\x1a\n" and b"eXIf" in data:
        start = 8
        while start + 8 <= size:
            length = int.from_bytes(data[start : start + 4], "big")
            kind = data[start + 4 : start + 8]
            if kind == b"eXIf":
                return _tiff_orientation(data[start + 8 : start + 8 + length])
            if kind == b"IEND":
                break
            start += 12 + length
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP" and b"EXIF" in data:
        start = 12
        while start + 8 <= size:
            length = int.from_bytes(data[start + 4 : start + 8], "little")
            if data[start : start + 4] == b"EXIF":
                return _tiff_orientation(data[start + 8 : start + 8 + length])
            start += 8 + length + length % 2
    return 1


def _is_rare_jpeg(data: bytes) -> bool:
    """True for a JPEG of a process that libjpeg does not know: lossless (medical images, RAW) or hierarchical."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xd9", b"\xda"):
        if data[at + 1 : at + 2] in (b"\xc3", b"\xc5", b"\xc6", b"\xc7", b"\xcb", b"\xcd", b"\xce", b"\xcf"):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _tiff_orientation(block: bytes) -> int:
    """The orientation in an EXIF block: a TIFF file without pixels, perhaps after a marker."""
    block = block.removeprefix(b"Exif\0\0")
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order: Literal["little", "big"] = "little" if block[:1] == b"I" else "big"
    directory = int.from_bytes(block[4:8], order)
    entries = int.from_bytes(block[directory : directory + 2], order)
    for start in range(directory + 2, min(directory + 2 + 12 * entries, len(block) - 11), 12):
        tag, kind = (int.from_bytes(block[start + at : start + at + 2], order) for at in (0, 2))
        if tag == 0x0112 and kind == 3:
            value = int.from_bytes(block[start + 8 : start + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _decode(data: bytes, max_pixels: int, size: int) -> tuple[Image.Image, int, tuple[int, int] | None]:
    """Steps 1 to 3: an image of mode L or RGB, the orientation that is still to be undone, and the size of a JPEG."""
    image = _open(data, max_pixels)
    width, height = image.size
    _check_pixels(width, height, max_pixels)
    jpeg_size = None
    if image.format == "JPEG":
        jpeg_size = width, height
        side = jpeg_reduced_side(size)
        image.draft(None, (side, side))
        # libjpeg gets the file in one piece. At the end of each piece it decodes a part of the picture again.
        image.decodermaxblock = len(data)
        if image.mode == "RGB" and _DECODES_TO_RGBX and not _is_rare_jpeg(data):
            image.tile = [image.tile[0]._replace(args=("RGBX", ""))]
    frame_box = image.tile[0].extents if image.tile else None
    image.load()
    flat: Image.Image
    if image.format == "GIF":
        flat = _gif_to_rgb(image, frame_box or (0, 0, width, height))
    elif image.format == "PSD" or (image.format == "TGA" and not data[17] & 15):
        flat = _without_alpha(image, data)
    else:
        flat = _to_grey_or_rgb(image, data)
    if image.format in ("JPEG", "PNG", "WEBP"):
        return flat, exif_orientation(data), jpeg_size
    if image.format == "AVIF":  # a rotation property of the container, which Pillow puts into an EXIF block
        return flat, _tiff_orientation(image.info.get("exif") or b""), None
    return flat, 1, None


def _views(flat: Image.Image, orientation: int, square: Square) -> list[np.ndarray]:
    """Steps 4 and 5: the pixels of each view of a square, view 0 first."""
    first = _square(flat, square.size, orientation)
    return [first, *(_view(flat, first, distortion, orientation) for distortion in square.distortions)]


def _square(
    flat: Image.Image, size: int, orientation: int, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Steps 4 and 5, of a whole image or of a part of it."""
    # A grey image is resampled as one channel. The numbers are the same as with three, in a third of the time.
    gap = None if box is None else _REDUCING_GAP
    mirrored, flipped = orientation in _MIRRORS, orientation in _FLIPS
    small = resize(flat, size, box=box, reducing_gap=gap, mirrored=mirrored, flipped=flipped)
    return np.ascontiguousarray(small.transpose(1, 0, 2)) if orientation >= 5 else small


def _view(flat: Image.Image, first: np.ndarray, distortion: Distortion, orientation: int) -> np.ndarray:
    """The pixels of a further view: uint8 of the shape of `first`, which is view 0."""
    size, side = len(first), distortion.side
    if side == size:
        mirror = Image.Transpose.FLIP_LEFT_RIGHT
        return np.array(Image.fromarray(first).transpose(mirror)) if distortion.mirrored else first
    # What is cut out of the square, in the coordinates of the image. The filter also sees pixels beside it.
    left, right = ((distortion.left + at) * flat.width / side for at in (0, size))
    top, bottom = ((distortion.top + at) * flat.height / side for at in (0, size))
    box = (left, top, min(right, flat.width), min(bottom, flat.height))
    return _square(flat, size, _MIRRORED[orientation] if distortion.mirrored else orientation, box)


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Reads the header with the one plugin that the signature names.

    `Image.open` would try every plugin (EPS starts Ghostscript), hide the fault of a damaged header, warn about
    malformed multi-picture JPEGs, and read those as a different format.
    """
    image_format = format_by_content(data)
    if image_format is None:
        raise ImageError("not_an_image", what_it_is(data))
    name = image_format.name
    if not is_read_here(image_format) or name not in _READERS:
        raise ImageError("unsupported_format", f"{name} is not read; {image_format.advice}")
    if (
        name == "WebP" and data[12:16] == b"VP8X"
    ):  # the animation decoder allocates two canvases before it tells their size
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        _check_pixels(width, height, max_pixels)
    if name == "ICO":  # it is decoded when it is opened
        _check_pixels(*_icon_size(data), max_pixels)
    if name == "PSD":
        _check_merged(data)
    return _READERS[name](io.BytesIO(_without_unused_chunks(data) if name == "PNG" else data))


def _without_unused_chunks(data: bytes) -> bytes:
    """A PNG file without `_UNUSED_CHUNKS`; a damaged or truncated file keeps all from the damage on."""
    kept, start, at = [], 0, 8
    while at + 12 <= len(data):
        stop = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if stop <= len(data) and data[at + 4 : at + 8] in _UNUSED_CHUNKS:
            kept.append(data[start:at])
            start = stop
        at = stop
    return b"".join([*kept, data[start:]]) if start else data


def _icon_size(data: bytes) -> tuple[int, int]:
    """Width and height of the picture that Pillow takes from an icon file, as that picture declares them."""
    entries = IcoImagePlugin.IcoFile(io.BytesIO(data)).entry
    if not entries:
        raise ImageError("corrupt", "an icon file without a picture")
    picture = data[entries[0].offset : entries[0].offset + 24]
    if picture.startswith(b"\x89PNG"):
        return int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")
    # The height counts the mask too; a negative one means that rows start from the top.
    width, height = (int.from_bytes(picture[at : at + 4], "little", signed=True) for at in (4, 8))
    return abs(width), abs(height) // 2


def _check_merged(data: bytes) -> None:
    """Raises ImageError if a PSD file has no merged picture, or one of several inks without certain colours."""
    if data[24:26] == b"\0\7":
        raise ImageError("unsupported_mode", "a PSD of mode multichannel has no certain colours")
    at = 30 + int.from_bytes(data[26:30], "big")
    stop = min(at + 4 + int.from_bytes(data[at : at + 4], "big"), len(data))
    at += 4
    while at + 12 <= stop:
        kind = int.from_bytes(data[at + 4 : at + 6], "big")
        at += 6 + (data[at + 6] // 2 + 1) * 2  # a name of an odd length with its length byte is even
        size = int.from_bytes(data[at : at + 4], "big")
        if kind == 1057 and data[at + 8 : at + 9] == b"\0":  # VersionInfo: version, hasRealMergedData
            raise ImageError(
                "unsupported_mode", "a PSD without a merged picture; save it with 'Maximize Compatibility', or as PNG"
            )
        at += 4 + size + size % 2


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height} pixels; the limit is {max_pixels} in all")


def _to_grey_or_rgb(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Converts a loaded image of any mode to mode L or RGB. It reads from `data` what Pillow does not give."""
    mode = image.mode
    transparency = image.info.get("transparency")
    if mode in ("L", "RGB") and transparency is None:
        return image
    if mode == "CMYK":
        return _cmyk_to_rgb(image)
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # a PGM of 16 bits, in 32
        return _grey16_to_grey8(image, transparency)
    if mode in ("I", "F"):
        raise ImageError("unsupported_mode", f"samples of mode {mode} (32 bits) have no certain grey level")
    if mode in ("1", "L") and transparency is not None:
        # Pillow gives a PNG's transparent level in units of the file's bit depth, but the pixels in units of 1/255.
        depth = data[24] if image.format == "PNG" else 8
        largest = 2**depth - 1
        level = (transparency & largest) * 255 // largest if mode == "L" else transparency
        return image.convert("L").point([255 if i == level else i for i in range(256)])
    if mode == "RGB" and transparency is not None:
        # The conversion turns the transparent colour of an image into alpha 0.
        shift = 8 if image.format == "PNG" and data[24] == 16 else 0
        image.info["transparency"] = tuple((sample >> shift) & 255 for sample in transparency)
    if mode in ("LA", "La"):
        return _over_white(image if mode == "LA" else image.convert("LA"), "L")
    if mode in ("RGBA", "RGBa", "PA") or transparency is not None:
        return _over_white(image if mode == "RGBA" else image.convert("RGBA"), "RGB")
    if mode == "P" and image.palette is not None and image.palette.mode != "RGB":
        return _over_white(image.convert("RGBA"), "RGB")
    if mode == "1":
        return image.convert("L")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError("unsupported_mode", f"mode {mode} does not convert to RGB: {error}") from error


def _without_alpha(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """A loaded image whose fourth channel is not to be composited, to mode L or RGB.

    A program that writes a PSD file composites over white, and a further channel may be any mask. A TGA file says how
    many bits of a pixel are alpha; where it says none, the bits are often zeros.
    """
    if image.mode in ("RGBA", "LA"):
        return image.convert("RGB" if image.mode == "RGBA" else "L")
    return _to_grey_or_rgb(image, data)


def _over_white(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Mode LA or RGBA over white: `(colour*a + 255*(255-a) + 127) // 255`, which is how Pillow pastes."""
    canvas = Image.new(mode, image.size, "white")
    canvas.paste(image, mask=image)
    return canvas


def _grey16_to_grey8(image: ImageFile.ImageFile, transparency: int | None) -> Image.Image:
    """The highest eight bits; Pillow's own conversion clips at 255 instead, which turns photos white."""
    samples = np.asarray(image)
    grey = np.minimum(samples >> (_significant_bits(image) - 8), 255).astype(np.uint8)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0:
        grey = 255 - grey  # WhiteIsZero, which Pillow undoes for 8 bits only
    if transparency is not None:
        grey[samples == transparency] = 255
    return Image.fromarray(grey)


def _significant_bits(image: ImageFile.ImageFile) -> int:
    """How many bits the samples have, of an image that Pillow gives in 16: 16, or 9 to 15 where a TIFF file says so.

    A TIFF file says it by its BitsPerSample (12: packed samples), and an OME-TIFF of 16 bits by `SignificantBits`, the
    range of the camera. MaxSampleValue (281) and SMaxSampleValue (341) are not used: TIFF 6.0 says that they must not
    affect how an image looks, and programs write the largest sample of each image into them, so that two images of a
    series would be scaled differently. For the same reason ImageJ's display range is not used. PNG needs nothing: where
    it has an sBIT chunk, the samples are scaled to 16 bits already. PPM and JPEG 2000 say their range; Pillow scales.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    bits = image.tag_v2.get(258, (16,))[0]
    if bits == 16:
        description = image.tag_v2.get(270)
        if isinstance(description, str) and "<OME" in description:
            found = re.search(r'\bSignificantBits="(\d{1,2})"', description)
            bits = int(found[1]) if found else 16
    return bits if 8 < bits < 16 else 16


def _cmyk_to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Floors `(255-c)*(255-k)/255` as TensorFlow's JPEG decoder does; Pillow rounds.

    Adobe writes CMYK JPEGs inverted. Pillow treats every CMYK JPEG like this, even without Adobe's marker.
    """
    ink = np.asarray(image)
    if image.format != "JPEG" or "adobe" in image.info:
        ink = 255 - ink
    return Image.fromarray((ink[..., :3].astype(np.uint16) * ink[..., 3:] // 255).astype(np.uint8))


def _gif_to_rgb(image: ImageFile.ImageFile, frame_box: tuple[int, int, int, int]) -> Image.Image:
    """The first frame on a black canvas, its transparent pixels black."""
    palette = bytearray(768) if image.mode == "P" else bytearray(np.arange(256, dtype=np.uint8).repeat(3))
    if image.mode == "P":
        colours = image.getpalette("RGB") or []
        palette[: len(colours)] = bytes(colours)
    transparency = image.info.get("transparency")
    if transparency is not None:
        palette[3 * transparency : 3 * transparency + 3] = bytes(3)
    image.putpalette(bytes(palette))
    image.info.pop("transparency", None)
    rgb = image.convert("RGB")
    if frame_box == (0, 0, *image.size):
        return rgb
    canvas = Image.new("RGB", image.size)
    canvas.paste(rgb.crop(frame_box), frame_box)
    return canvas
