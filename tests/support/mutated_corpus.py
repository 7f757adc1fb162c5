"""Damaged and deceitful image files: small ones of every format, mutated from a fixed seed, and bombs.

A bomb is a small file that unpacks to a large image, or declares to.
"""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.image_corpus import encode, exif, photo, png, png_chunk

MUTATIONS = ("cut", "flip", "header", "dimensions", "join", "zeros", "swap")
_ROUNDS = 4


def small_images() -> dict[str, bytes]:
    """Intact files, one of each kind."""
    rgb, grey, clear = photo(60, 44), photo(60, 44, "L"), photo(60, 44, "RGBA")
    few = rgb.quantize(40)
    frames = {"save_all": True, "append_images": [few.rotate(180), few.rotate(90)], "duration": 90}
    webp_frames = {"save_all": True, "append_images": [clear.rotate(180)], "method": 0}
    return {
        "jpeg": encode(rgb, "JPEG", exif=exif(6)),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg-cmyk": encode(photo(60, 44, "CMYK"), "JPEG"),
        "png-1": encode(grey.convert("1"), "PNG"),
        "png-8": encode(clear, "PNG"),
        "png-16": encode(photo(60, 44, "I;16"), "PNG"),
        "png-palette": encode(few, "PNG", transparency=bytes(range(0, 240, 6))),
        "png-interlaced": png(60, 44, 8, 2, interlaced=True),
        "gif": encode(few, "GIF", transparency=2, disposal=2, **frames),
        "webp-lossy": encode(clear, "WEBP", exif=exif(3)),
        "webp-lossless": encode(rgb, "WEBP", lossless=True),
        "webp-animated": encode(clear, "WEBP", **webp_frames),
        "bmp": encode(few, "BMP"),
        "tiff-lzw": encode(rgb, "TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
        "tiff-jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff-tiled": tiled_tiff(grey),
        "avif": encode(rgb, "AVIF", speed=10),
        "jpeg2000": encode(rgb, "JPEG2000"),
        "ppm": encode(rgb, "PPM"),
        "ico": encode(rgb, "ICO"),
        "ico-bitmap": encode(clear, "ICO", bitmap_format="bmp"),
        "tga": encode(clear, "TGA", compression="tga_rle"),
        "dds": encode(clear, "DDS", pixel_format="DXT5"),
        "qoi": encode(clear, "QOI"),
    }


def tiff(width: int, height: int, tags: dict[int, int | tuple[int, ...]], pixels: bytes = b"") -> bytes:
    """A little-endian TIFF of grey bytes: tags beside and instead of the usual ones; pixels stand at byte 8."""
    usual = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    merged = {tag: value if isinstance(value, tuple) else (value,) for tag, value in (usual | tags).items()}
    start = 8 + len(pixels)
    extra_at = start + 2 + 12 * len(merged) + 4
    entries, extra = b"", b""
    for tag, values in sorted(merged.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    directory = struct.pack("<H", len(merged)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + pixels + directory + extra


def tiled_tiff(grey: Image.Image) -> bytes:
    """In tiles of 16 x 16, which Pillow reads but does not write."""
    across, down = -(-grey.width // 16), -(-grey.height // 16)
    samples = np.zeros((down * 16, across * 16), np.uint8)
    samples[: grey.height, : grey.width] = np.asarray(grey)
    tiles = samples.reshape(down, 16, across, 16).swapaxes(1, 2).tobytes()
    offsets = tuple(range(8, 8 + len(tiles), 256))
    tags = {322: 16, 323: 16, 324: offsets, 325: (256,) * len(offsets)}
    return tiff(grey.width, grey.height, tags, tiles)


def mutate(kind: str, data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One file damaged in one of the ways of `MUTATIONS`."""
    damaged = bytearray(data)
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    if kind == "flip":
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    elif kind == "header":
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(min(len(damaged), 120))] = rng.randrange(256)
    elif kind == "dimensions":
        # Wherever the file speaks of its 60 x 44 (or one less), it speaks of something else.
        for order in "<>":
            for size in (4, 2):
                code = order + {2: "H", 4: "I"}[size]
                for side in (60, 44, 59, 43):
                    value = struct.pack(code, rng.choice([0, 1, side + 1, 1000, 256**size - 1]))
                    at = damaged.find(struct.pack(code, side))
                    if at >= 0:
                        damaged[at : at + size] = value
    elif kind == "join":
        return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    elif kind == "zeros":
        start, length = rng.randrange(len(damaged)), rng.randint(1, 200)
        damaged[start : start + length] = bytes(length)
    else:
        assert kind == "swap"
        a, b = sorted(rng.randrange(len(damaged)) for _ in range(2))
        damaged[a:b] = damaged[a:b][::-1]
    return bytes(damaged)


def mutated() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of several hundred damaged files, the same ones each time."""
    images = small_images()
    for name, data in images.items():
        yield f"{name} intact", data
        yield f"{name} twice", data + data
        for kind in MUTATIONS:
            for number in range(_ROUNDS):
                rng = random.Random(f"{name} {kind} {number}")
                other = images[rng.choice(sorted(images))]
                yield f"{name} {kind} {number}", mutate(kind, data, other, rng)


def png_of_zeros(width: int, height: int, *, depth: int = 8, colour_type: int = 0) -> bytes:
    """A whole PNG, black, small as a file: written a stripe at a time."""
    samples = {0: 1, 2: 3, 6: 4}[colour_type]
    line = bytes(1 + (width * depth * samples + 7) // 8)
    packer = zlib.compressobj(1)
    packed = io.BytesIO()
    for start in range(0, height, 100):
        packed.write(packer.compress(line * min(100, height - start)))
    packed.write(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", packed.getvalue()), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def bombs() -> dict[str, tuple[bytes, str | None]]:
    """Name to bytes and the reason that they must end with; None for those that only must end."""
    images = small_images()
    gif, jp2, jpeg = bytearray(images["gif"]), bytearray(images["jpeg2000"]), bytearray(images["jpeg"])
    webp, bmp = bytearray(images["webp-animated"]), bytearray(images["bmp"])
    gif[6:10] = b"\xff\xff\xff\xff"
    webp[24:30] = b"\xff" * 6
    bmp[18:26] = struct.pack("<ii", 1 << 30, 1 << 30)
    at = jp2.index(b"ihdr") + 4
    jp2[at : at + 8] = struct.pack(">II", 1 << 31, 1 << 31)
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = b"\xff\xdc\xff\xdc"
    plain = images["png-8"]
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000)))
    profile = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(80_000_000)))
    pages = tiff(60, 44, {}, bytes(60 * 44))
    return {
        "png 30000 x 30000": (png_of_zeros(30_000, 30_000, depth=1), "too_many_pixels"),
        "gif 65535 x 65535": (bytes(gif), "too_many_pixels"),
        "webp 2^24 x 2^24": (bytes(webp), "too_many_pixels"),
        "bmp 2^30 x 2^30": (bytes(bmp), "too_many_pixels"),
        "jpeg2000 2^31 x 2^31": (bytes(jp2), "too_many_pixels"),
        "jpeg 65500 x 65500": (bytes(jpeg), "too_many_pixels"),
        "ppm 99999999 x 99999999": (b"P6 99999999 99999999 255\n", "too_many_pixels"),
        "tiff 2^31 x 2^31": (tiff(1 << 31, 1 << 31, {}), "too_many_pixels"),
        "tiff of no bytes": (tiff(10_000, 10_000, {}), None),
        "tiff of huge tiles": (tiff(60, 44, {322: 1 << 20, 323: 1 << 20, 324: 8, 325: 99}, bytes(99)), None),
        "tiff of huge strips": (tiff(60, 44, {278: 1 << 31, 279: 1 << 31}, bytes(99)), None),
        "tiff of many samples": (tiff(60, 44, {277: 60_000, 258: (8,) * 60_000}, bytes(99)), None),
        "tiff whose directories go round": (pages[:-4] + struct.pack("<I", 8 + 60 * 44), None),
        "png with a text of 80 MB": (plain[:33] + text + plain[33:], None),
        "png with a profile of 80 MB": (plain[:33] + profile + plain[33:], None),
        "png chunk longer than the file": (plain[:33] + b"\x7f\xff\xff\xffIDAT" + plain[41:], None),
    }
