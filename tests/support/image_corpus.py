"""Encoded images of every kind that users bring, made on the spot, and whether a graph reads them."""

import functools
import io
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.support.made_once import made_once


class Sample(NamedTuple):
    name: str
    data: bytes
    # Whether the exported model reads it; if not, it must say so.
    in_graph: bool = True

    def __repr__(self) -> str:
        return self.name


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth waves and noise, so that every pixel and every filter tap counts."""
    rng = np.random.default_rng(width * 10_007 + height)
    channels = {"L": 1, "I;16": 1, "LA": 2, "RGB": 3}.get(mode, 4)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, np.newaxis]
    samples = rng.normal(0, 14, (height, width, channels))
    for c in range(channels):
        samples[..., c] += np.sin(x / (7 + 3 * c)) * 60 + np.cos(y / (5 + 2 * c)) * 60 + 128
    if mode == "I;16":
        return Image.fromarray((samples[..., 0] * 257).clip(0, 65535).astype(np.uint16))
    pixels = samples.clip(0, 255, out=samples).astype(np.uint8)
    if mode in ("LA", "RGBA"):  # clear, opaque and everything between
        pixels[..., -1] = np.clip((pixels[..., -1].astype(int) - 128) * 3 + 128, 0, 255)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with two entries, the second the orientation."""
    header = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    maker = struct.pack(order + "HHII", 0x010F, 2, 4, 0x41424300)
    turned = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + header + struct.pack(order + "H", 2) + maker + turned + bytes(4)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# For each pass of Adam7: first column, first row, column step, row step.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    width: int,
    height: int,
    depth: int,
    colour_type: int,
    *,
    before_data: bytes = b"",
    after_data: bytes = b"",
    interlaced: bool = False,
    data_chunk_size: int = 1 << 20,
) -> bytes:
    """A PNG of noise written by hand, for what Pillow does not write."""
    rng = np.random.default_rng(width + 31 * height + depth)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = []
    for left, top, right, down in passes:
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        if columns:
            lines += [b"\0" + rng.bytes((columns * depth * samples + 7) // 8) for _ in range(rows)]
    packed = zlib.compress(b"".join(lines))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    blocks = [packed[i : i + data_chunk_size] for i in range(0, len(packed), data_chunk_size)]
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + before_data
        + b"".join(png_chunk(b"IDAT", block) for block in blocks)
        + after_data
        + png_chunk(b"IEND", b"")
    )


def jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and stop of each segment before the scan."""
    segments, at = [], 2
    while data[at + 1] != 0xDA:
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at + 1], at, stop))
        at = stop
    return segments


def without_segment(data: bytes, marker: int) -> bytes:
    for kind, start, stop in reversed(jpeg_segments(data)):
        if kind == marker:
            data = data[:start] + data[stop:]
    return data


def with_segment(data: bytes, body: bytes, marker: int = 0xE1) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


def upright_subsampling(data: bytes) -> bytes:
    """Makes 4:4:0 of 4:2:2: the blocks of one unit keep their order, so the scan stays valid (and scrambled).

    Cameras' 4:2:2 photos, turned by lossless tools, are 4:4:0. The picture must be square, in whole units.
    """
    start = next(start for kind, start, _ in jpeg_segments(data) if kind in (0xC0, 0xC2))
    assert data[start + 11] == 0x21
    return data[: start + 11] + b"\x12" + data[start + 12 :]


def ycck(data: bytes) -> bytes:
    """Declares an Adobe CMYK JPEG as YCCK."""
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def gif_with_partial_frame() -> bytes:
    """A frame of 40 x 30 at (7, 5) on a canvas of 64 x 48."""
    data = bytearray(encode(photo(40, 30).quantize(32), "GIF"))
    data[6:10] = struct.pack("<HH", 64, 48)
    frame = data.index(b"\x2c" + struct.pack("<HHHH", 0, 0, 40, 30))
    data[frame + 1 : frame + 5] = struct.pack("<HH", 7, 5)
    return bytes(data)


@functools.cache
def corpus() -> tuple[Sample, ...]:
    return made_once(
        "image_corpus", lambda: (*_jpegs(), *_pngs(), *_gifs(), *_webps(), *_bmps(), *_others())
    )  # Three seconds.


def _jpegs() -> list[Sample]:
    sizes = [(1, 1), (2, 3), (3, 2), (299, 299), (500, 375), (375, 500), (900, 40), (33, 700), (3, 700)]
    # Around the sizes where the reduced scale changes: 374 on the shorter side for each halving.
    sizes += [(747, 800), (748, 800), (1000, 749), (1495, 1500), (1496, 1500), (2991, 2992), (2992, 3000), (3000, 2000)]
    samples = [Sample(f"jpeg-{w}x{h}", encode(photo(w, h), "JPEG", quality=88)) for w, h in sizes]
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        for size in ((131, 97), (1201, 1211)):
            data = encode(photo(*size), "JPEG", subsampling=subsampling)
            samples.append(Sample(f"jpeg-{name}-{size[0]}", data))
    for side in (96, 1200):
        data = upright_subsampling(encode(photo(side, side), "JPEG", subsampling=1))
        samples.append(Sample(f"jpeg-440-{side}", data))
    small, grey, ink = photo(150, 111), photo(150, 111, "L"), photo(150, 111, "CMYK")
    adobe = encode(ink, "JPEG", quality=90)
    samples += [
        Sample("jpeg-progressive", encode(photo(640, 480), "JPEG", progressive=True)),
        Sample("jpeg-progressive-reduced", encode(photo(1250, 1230), "JPEG", progressive=True)),
        Sample("jpeg-restarts", encode(small, "JPEG", restart_marker_blocks=3)),
        Sample("jpeg-grey", encode(grey, "JPEG")),
        Sample("jpeg-grey-reduced", encode(photo(1300, 1250, "L"), "JPEG")),
        Sample("jpeg-cmyk-adobe", adobe),
        Sample("jpeg-cmyk-reduced", encode(photo(1300, 1250, "CMYK"), "JPEG")),
        Sample("jpeg-cmyk-plain", without_segment(adobe, 0xEE)),
        Sample("jpeg-ycck", ycck(adobe)),
        Sample("jpeg-rgb", encode(small, "JPEG", keep_rgb=True)),
        Sample("jpeg-icc-comment", encode(small, "JPEG", icc_profile=b"x" * 70_000, comment=b"hello")),
        Sample("jpeg-trailing-bytes", encode(small, "JPEG") + b"after the end" * 9),
        Sample("jpeg-fill-bytes", (d := encode(small, "JPEG", exif=exif(6)))[:2] + b"\xff\xff" + d[2:]),
        Sample("jpeg-second-exif", with_segment(encode(small, "JPEG", exif=exif(6)), exif(3, ">"))),
    ]
    for orientation in range(1, 9):
        data = encode(photo(160, 120), "JPEG", exif=exif(orientation, "<>"[orientation % 2]))
        samples.append(Sample(f"jpeg-orientation-{orientation}", data))
    whole = exif(6)
    broken = {
        "empty": b"Exif\0\0",
        "no-tiff": b"Exif\0\0" + b"nonsense" * 4,
        "cut": whole[:-8],
        "offset": whole[:10] + b"\xff\xff\xff\x7f" + whole[14:],
        "offset-zero": whole[:10] + bytes(4) + whole[14:],
        "count": whole[:14] + b"\xff\xff" + whole[16:],
        "value-9": exif(9),
        "value-0": exif(0, ">"),
        "type": whole[:30] + b"\x04" + whole[31:],
    }
    plain = encode(small, "JPEG")
    return samples + [Sample(f"jpeg-exif-{name}", with_segment(plain, body)) for name, body in broken.items()]


def _pngs() -> list[Sample]:
    samples = [Sample(f"png-{w}x{h}", encode(photo(w, h), "PNG")) for w, h in ((1, 1), (2, 3), (299, 299), (640, 333))]
    palette = np.random.default_rng(5).bytes(768)
    modes = ("L", "LA", "RGBA", "I;16")
    samples += [Sample(f"png-{mode}", encode(photo(310, 205, mode), "PNG")) for mode in modes]
    few = photo(210, 130).quantize(40)
    samples += [
        Sample("png-palette", encode(few, "PNG")),
        Sample("png-palette-clear-index", encode(few, "PNG", transparency=3)),
        Sample("png-palette-alpha", encode(few, "PNG", transparency=bytes(range(0, 240, 6)))),
        Sample("png-bilevel", encode(photo(210, 130, "L").convert("1"), "PNG")),
        Sample("png-clear-grey", encode(photo(60, 40, "L"), "PNG", transparency=128)),
        Sample("png-clear-rgb", encode(im := photo(60, 40), "PNG", transparency=im.getpixel((3, 3)))),
        Sample("png-index-beyond-palette", png(50, 20, 8, 3, before_data=png_chunk(b"PLTE", palette[:48]))),
        Sample("png-gamma", png(50, 20, 8, 2, before_data=png_chunk(b"gAMA", struct.pack(">I", 100_000)))),
        Sample(
            "png-many-chunks",
            png(90, 70, 8, 2, data_chunk_size=99, after_data=png_chunk(b"eXIf", exif(8)[6:])),
        ),
        Sample("png-bad-exif", png(30, 20, 8, 2, before_data=png_chunk(b"eXIf", b"MM\0*\0"))),
        Sample(
            "png-clear-rgb-16",
            png(9, 9, 16, 2, before_data=png_chunk(b"tRNS", bytes(range(6)))),
            in_graph=False,
        ),
        Sample("png-clear-grey-16", png(99, 9, 16, 0, before_data=png_chunk(b"tRNS", b"\x12\x34"))),
    ]
    for depth in (1, 2, 4, 8, 16):
        for colour_type in (0, 2, 3, 4, 6):
            if (depth < 8 and colour_type not in (0, 3)) or (depth == 16 and colour_type == 3):
                continue
            before = png_chunk(b"PLTE", palette[: 3 * 2**depth]) if colour_type == 3 else b""
            name = f"png-type{colour_type}-{depth}bit"
            samples.append(Sample(name, png(45, 33, depth, colour_type, before_data=before)))
            samples.append(
                Sample(f"{name}-adam7", png(45, 33, depth, colour_type, before_data=before, interlaced=True))
            )
            if colour_type == 0 and depth < 16:
                clear = png_chunk(b"tRNS", b"\0\1")
                samples.append(Sample(f"{name}-clear", png(45, 33, depth, 0, before_data=clear)))
    for orientation in range(2, 9):
        data = encode(photo(90, 60), "PNG", exif=exif(orientation, "<>"[orientation % 2]))
        samples.append(Sample(f"png-orientation-{orientation}", data))
    return samples


def _gifs() -> list[Sample]:
    few = photo(120, 90).quantize(50)
    frames = {"save_all": True, "append_images": [few.rotate(180)], "duration": 90}
    return [
        Sample("gif", encode(few, "GIF")),
        Sample("gif-not-interlaced", encode(few, "GIF", interlace=0)),
        Sample("gif-clear", encode(few, "GIF", transparency=9)),
        Sample("gif-animated", encode(few, "GIF", **frames)),
        Sample("gif-animated-clear", encode(few, "GIF", transparency=2, disposal=2, **frames)),
        Sample("gif-comment", encode(few, "GIF", comment=b"c" * 700)),
        Sample("gif-grey", encode(photo(70, 80, "L"), "GIF")),
        Sample("gif-partial-frame", gif_with_partial_frame(), in_graph=False),
    ]


def _webps() -> list[Sample]:
    plain, clear = photo(201, 140), photo(201, 140, "RGBA")
    samples = [
        Sample("webp-lossy", encode(plain, "WEBP", quality=75)),
        Sample("webp-lossy-large", encode(photo(801, 603), "WEBP", quality=60, method=0)),
        Sample("webp-lossy-alpha", encode(clear, "WEBP", quality=75)),
        Sample("webp-lossless", encode(plain, "WEBP", lossless=True, method=0)),
        Sample("webp-lossless-alpha", encode(clear, "WEBP", lossless=True, exact=True, method=0)),
        Sample("webp-1x1", encode(photo(1, 1), "WEBP")),
    ]
    for frame in (plain, clear):
        data = encode(frame, "WEBP", save_all=True, append_images=[frame.rotate(180)], method=0)
        samples.append(Sample(f"webp-animated-{frame.mode}", data, in_graph=False))
    for orientation in range(2, 9):
        data = encode(photo(64, 48), "WEBP", exif=exif(orientation, "<>"[orientation % 2]))
        samples.append(Sample(f"webp-orientation-{orientation}", data))
    return samples


def _bmps() -> list[Sample]:
    plain = photo(101, 67)
    bottom_up = encode(plain, "BMP")
    return [
        Sample("bmp-24", bottom_up),
        Sample("bmp-24-from-top", bottom_up[:22] + struct.pack("<i", -67) + bottom_up[26:]),
        Sample("bmp-32", encode(photo(101, 67, "RGBA"), "BMP")),
        Sample("bmp-8-palette", encode(plain.quantize(99), "BMP"), in_graph=False),
        Sample("bmp-8-grey", encode(photo(101, 67, "L"), "BMP"), in_graph=False),
        Sample("bmp-1", encode(photo(101, 67, "L").convert("1"), "BMP"), in_graph=False),
    ]


def _others() -> list[Sample]:
    plain, rotated = photo(120, 80), exif(6)
    images = {
        "tiff-rgb": encode(plain, "TIFF"),
        "tiff-lzw-orientation": encode(plain, "TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
        "tiff-jpeg": encode(plain, "TIFF", compression="jpeg"),
        "tiff-deflate-rgba": encode(photo(120, 80, "RGBA"), "TIFF", compression="tiff_deflate"),
        "tiff-grey16": encode(photo(120, 80, "I;16"), "TIFF"),
        "tiff-cmyk": encode(photo(120, 80, "CMYK"), "TIFF"),
        "tiff-lab": encode(plain.convert("LAB"), "TIFF"),
        "tiff-fax": encode(photo(120, 80, "L").convert("1"), "TIFF", compression="group4"),
        "tiff-palette": encode(plain.quantize(30), "TIFF"),
        "avif": encode(plain, "AVIF", quality=70, speed=10),
        "avif-orientation": encode(plain, "AVIF", quality=70, speed=10, exif=rotated),
        "jpeg2000": encode(plain, "JPEG2000"),
        "jpeg2000-grey16": encode(photo(120, 80, "I;16"), "JPEG2000"),
        "ppm": encode(plain, "PPM"),
        "pgm-16": encode(photo(120, 80, "I;16"), "PPM"),
        "tga": encode(photo(120, 80, "RGBA"), "TGA"),
        "tga-palette-rle": encode(plain.quantize(30), "TGA", compression="tga_rle"),
        "ico": encode(photo(64, 48, "RGBA"), "ICO"),
        "ico-bitmap": encode(photo(64, 48, "RGBA"), "ICO", bitmap_format="bmp"),
        "dds": encode(photo(120, 80, "RGBA"), "DDS"),
        "dds-bc1": encode(plain, "DDS", pixel_format="DXT1"),
        "qoi": encode(photo(120, 80, "RGBA"), "QOI"),
    }
    return [Sample(name, data, in_graph=False) for name, data in images.items()]
