"""The image formats: how their content and their names tell them, and which of them are read.

This is the one list of formats. `preprocess.images.decode` takes the format of an image from its content, and
`preprocess.images.class_folders` decides by the name which files of a folder are images. A format that is not read is
named all the same, so that a failure says what the file is and what to do.

Each format that is read is code that an attacker may reach, so a format is read only if people have photos in it. No
format is read whose decoder opens other files or starts a program (EPS, WMF, HDF5 and others of Pillow).

This module imports neither Pillow nor NumPy.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Iterator
from typing import Literal

HEIF_PACKAGE = "pi_heif"
"""The module that reads HEIC, of the optional extra `heif`."""

_CONVERT = "convert it to JPEG or PNG"
_INSTALL_HEIF = "install the extra heif (pip install '.[heif]'), or convert it to JPEG"
_EXPORT_RAW = "export it as JPEG from the camera or a photo program"


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """A format of images, of documents or of films.

    Attributes:
      name: how messages name it.
      extensions: the endings of file names, in lower case and without the dot.
      is_read: whether the decoder reads it, perhaps with an optional package.
      advice: what to do with a file that is not read.
    """

    name: str
    extensions: tuple[str, ...] = ()
    is_read: bool = False
    advice: str = _CONVERT


FORMATS = (
    ImageFormat("JPEG", ("jpg", "jpeg", "jpe", "jfif", "mpo"), True),
    ImageFormat("PNG", ("png", "apng"), True),
    ImageFormat("GIF", ("gif",), True),
    ImageFormat("WebP", ("webp",), True),
    ImageFormat("TIFF", ("tif", "tiff"), True),
    ImageFormat("AVIF", ("avif", "avifs"), True),
    ImageFormat("HEIC", ("heic", "heif", "heics", "heifs", "hif"), True, _INSTALL_HEIF),
    ImageFormat("JPEG 2000", ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"), True),
    ImageFormat("BMP", ("bmp", "dib"), True),
    ImageFormat("PPM", ("ppm", "pgm", "pbm", "pnm"), True),
    ImageFormat("PSD", ("psd",), True),
    ImageFormat("TGA", ("tga", "icb", "vda", "vst"), True),
    ImageFormat("ICO", ("ico",), True),
    ImageFormat("DDS", ("dds",), True),
    ImageFormat("QOI", ("qoi",), True),
    # RAW photos: what the sensor of a camera saw, with a small preview for those who cannot develop it.
    ImageFormat("DNG", ("dng",), advice=_EXPORT_RAW),
    ImageFormat("Canon RAW", ("cr2", "cr3", "crw"), advice=_EXPORT_RAW),
    ImageFormat("Nikon RAW", ("nef", "nrw"), advice=_EXPORT_RAW),
    ImageFormat("Sony RAW", ("arw", "sr2", "srf"), advice=_EXPORT_RAW),
    ImageFormat("Fujifilm RAW", ("raf",), advice=_EXPORT_RAW),
    ImageFormat("Olympus RAW", ("orf",), advice=_EXPORT_RAW),
    ImageFormat("Panasonic RAW", ("rw2", "rwl"), advice=_EXPORT_RAW),
    ImageFormat("Pentax RAW", ("pef",), advice=_EXPORT_RAW),
    ImageFormat("Samsung RAW", ("srw",), advice=_EXPORT_RAW),
    ImageFormat("Hasselblad RAW", ("3fr", "fff"), advice=_EXPORT_RAW),
    ImageFormat("Phase One RAW", ("iiq",), advice=_EXPORT_RAW),
    ImageFormat("Kodak RAW", ("dcr", "kdc", "k25"), advice=_EXPORT_RAW),
    ImageFormat("Epson RAW", ("erf",), advice=_EXPORT_RAW),
    ImageFormat("Leaf or Mamiya RAW", ("mos", "mef"), advice=_EXPORT_RAW),
    ImageFormat("Minolta RAW", ("mrw",), advice=_EXPORT_RAW),
    ImageFormat("Sigma RAW", ("x3f",), advice=_EXPORT_RAW),
    ImageFormat("RAW", (), advice=_EXPORT_RAW),
    # Other formats, by their content or their names.
    ImageFormat("JPEG XL", ("jxl",)),
    ImageFormat("JPEG-LS", ("jls",)),
    ImageFormat("JPEG XR", ("jxr", "wdp", "hdp")),
    ImageFormat("SVG", ("svg", "svgz")),
    ImageFormat("EPS", ("eps", "ps", "epsf")),
    ImageFormat("PDF", ("pdf", "ai")),
    ImageFormat("PSB", ("psb",)),
    ImageFormat("GIMP XCF", ("xcf",)),
    ImageFormat("CUR", ("cur",)),
    ImageFormat("ICNS", ("icns",)),
    ImageFormat("SGI", ("sgi", "rgb", "rgba", "bw")),
    ImageFormat("PCX", ("pcx",)),
    ImageFormat("DCX", ("dcx",)),
    ImageFormat("PFM", ("pfm",)),
    ImageFormat("PAM", ("pam",)),
    ImageFormat("XPM", ("xpm",)),
    ImageFormat("XBM", ("xbm",)),
    ImageFormat("FITS", ("fits", "fit", "fts")),
    ImageFormat("OpenEXR", ("exr",)),
    ImageFormat("Radiance HDR", ("hdr",)),
    ImageFormat("DICOM", ("dcm", "dicom")),
    ImageFormat("NIfTI", ("nii",)),
    ImageFormat("DjVu", ("djvu", "djv")),
    ImageFormat("BLP", ("blp",)),
    ImageFormat("FTEX", ("ftc", "ftu")),
    ImageFormat("GBR", ("gbr",)),
    ImageFormat("FLI", ("fli", "flc")),
    ImageFormat("IM", ("im",)),
    ImageFormat("MSP", ("msp",)),
    ImageFormat("Sun raster", ("ras", "im1")),
    ImageFormat("PIXAR", ("pxr",)),
    ImageFormat("PhotoCD", ("pcd",)),
    ImageFormat("MCIDAS", ("ara",)),
    ImageFormat("XV thumbnail"),
    ImageFormat("WMF", ("wmf",)),
    ImageFormat("EMF", ("emf",)),
    ImageFormat("FlashPix or Office", ("fpx",)),
    ImageFormat("HDF5", ("h5", "hdf", "hdf5")),
    ImageFormat("GRIB", ("grib", "grb")),
    ImageFormat("BUFR", ("bufr",)),
    ImageFormat("MP4 or QuickTime video", ("mp4", "m4v", "mov", "3gp"), advice="extract pictures from it"),
    ImageFormat("AVI video", ("avi",), advice="extract pictures from it"),
    ImageFormat("Matroska video", ("mkv", "webm"), advice="extract pictures from it"),
)
_BY_NAME = {one.name: one for one in FORMATS}
_BY_EXTENSION = {extension: one for one in FORMATS for extension in one.extensions}

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"BM", "BMP"),
    (0, b"8BPS\0\1", "PSD"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm RAW"),
    (0, b"IIRO", "Olympus RAW"),
    (0, b"IIRS", "Olympus RAW"),
    (0, b"MMOR", "Olympus RAW"),
    (0, b"IIU\0", "Panasonic RAW"),
    (0, b"\0MRM", "Minolta RAW"),
    (0, b"FOVb", "Sigma RAW"),
    (6, b"HEAPCCDR", "Canon RAW"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS\0\2", "PSB"),
    (0, b"gimp xcf", "GIMP XCF"),
    (0, b"icns", "ICNS"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\xb1\x68\xde\x3a", "DCX"),
    (0, b"/* XPM */", "XPM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (128, b"DICM", "DICOM"),
    (344, b"n+1\0", "NIfTI"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"BLP1", "BLP"),
    (0, b"BLP2", "BLP"),
    (0, b"FTEX", "FTEX"),
    (20, b"GIMP", "GBR"),
    (4, b"\x11\xaf", "FLI"),
    (4, b"\x12\xaf", "FLI"),
    (0, b"Image type: ", "IM"),
    (0, b"DanM", "MSP"),
    (0, b"LinS", "MSP"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"\x80\xe8\0\0", "PIXAR"),
    (2048, b"PCD_", "PhotoCD"),
    (0, b"\0\0\0\0\0\0\0\4", "MCIDAS"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "FlashPix or Office"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"GRIB", "GRIB"),
    (0, b"BUFR", "BUFR"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska video"),
    (4, b"moov", "MP4 or QuickTime video"),
    (4, b"mdat", "MP4 or QuickTime video"),
)
# Content that is no picture at all, for the message.
_OTHER_CONTENT: tuple[tuple[bytes, str], ...] = (
    (b"PK\3\4", "a ZIP archive (or a document in one)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"data:image/", "a data URI: the image is encoded as text (Base64), and must be a file of its own"),
    (b"/9j/", "a JPEG that is encoded as text (Base64): decode it"),
    (b"iVBORw0KGgo", "a PNG that is encoded as text (Base64): decode it"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself, with git lfs pull"),
    (b"\0\5\x16\7", "an AppleDouble file, in which macOS keeps what belongs to another file"),
)
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body)", re.IGNORECASE)
_SVG = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!DOCTYPE svg|<svg)")
_NETPBM = re.compile(rb"P([1-7fF])\s+[#\dWDHMT]")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
)

_SUB_DIRECTORIES, _DNG_VERSION, _SUBFILE_TYPE, _PHOTOMETRIC, _MAKE = 330, 50706, 254, 262, 271
_COLOUR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_MAX_DIRECTORIES = 16
_RAW_BY_MAKE = {
    "canon": "Canon RAW",
    "nikon": "Nikon RAW",
    "sony": "Sony RAW",
    "olympus": "Olympus RAW",
    "panasonic": "Panasonic RAW",
    "pentax": "Pentax RAW",
    "ricoh": "Pentax RAW",
    "samsung": "Samsung RAW",
    "hasselblad": "Hasselblad RAW",
    "phase one": "Phase One RAW",
    "kodak": "Kodak RAW",
    "eastman kodak": "Kodak RAW",
    "seiko epson": "Epson RAW",
    "mamiya": "Leaf or Mamiya RAW",
    "leaf": "Leaf or Mamiya RAW",
}  # fmt: skip


def format_by_content(data: bytes) -> ImageFormat | None:
    """The format of a file, by its content alone.

    Args:
      data: the whole file. The first 64 KiB suffice for all formats except TGA and RAW photos, whose tables may lie
        anywhere.

    Returns:
      None if the content is of no known format.
    """
    name = _name_by_content(data)
    return _BY_NAME[name] if name else None


def format_by_name(path: str) -> ImageFormat | None:
    """The format that the ending of a path promises; None if no known format has it."""
    name = path.rpartition("/")[2]
    stem, _, extension = name.rpartition(".")
    return _BY_EXTENSION.get(extension.lower()) if stem else None


def is_image_name(path: str) -> bool:
    """True if the ending is that of a format that is read here, with the packages that are installed."""
    by_name = format_by_name(path)
    return by_name is not None and is_read_here(by_name)


def is_raw_name(path: str) -> bool:
    """True if the ending is that of RAW photos, which often lie beside a JPEG of the same photo."""
    by_name = format_by_name(path)
    return by_name is not None and by_name.advice == _EXPORT_RAW


def is_read_here(image_format: ImageFormat) -> bool:
    """Whether the decoder reads a format here: HEIC is read if its package is installed."""
    return image_format.is_read and (image_format.name != "HEIC" or _has_heif())


def what_it_is(data: bytes) -> str:
    """For a message: what content of no known format is, or how it begins."""
    for signature, name in _OTHER_CONTENT:
        if data.startswith(signature):
            return name
    if _HTML.match(data[:1024]):
        return "an HTML page, perhaps what a server says instead of the image"
    if data[:1] in (b"{", b"[") and data[:256].isascii():
        return "JSON, perhaps what a server says instead of the image"
    return f"no image signature: the file starts with {data[:12]!r}"


@functools.cache
def _has_heif() -> bool:
    return importlib.util.find_spec(HEIF_PACKAGE) is not None


def _name_by_content(data: bytes) -> str | None:
    # The most frequent formats first.
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG-LS" if data[3:4] == b"\xf7" else "JPEG"
    if data[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "AVI video"}.get(data[8:12])
    if data[:4] in _TIFF:
        return raw_photo(data) or "TIFF"
    if data[4:8] == b"ftyp":
        return _name_by_brands(data)
    if data.startswith(b"P7 332"):
        return "XV thumbnail"
    if data[:1] == b"P" and (netpbm := _NETPBM.match(data[:256])):
        return {b"7": "PAM", b"f": "PFM", b"F": "PFM"}.get(netpbm[1], "PPM")
    for at, signature, name in _SIGNATURES:
        if data.startswith(signature, at):
            return name
    if data[:4] == b"\0\0\2\0" and data[4:6] != b"\0\0":
        return "CUR"
    if data[:1] == b"\n" and data[1:2] in b"\0\2\3\4\5" and data[2:3] == b"\1" and data[3:4] in b"\1\2\4\x08":
        return "PCX"
    if data.startswith(b"#define ") and re.match(rb"#define \S*width \d+", data[:256]):
        return "XBM"
    if _SVG.match(data[:1024]) and b"<svg" in data[:4096]:
        return "SVG"
    return "TGA" if _is_tga(data) else None


def _name_by_brands(data: bytes) -> str | None:
    """The format of a file of ISO media boxes, by the brands in its first box."""
    stop = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, stop - 3, 4))}
    if b"avi" in data[8:stop]:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIC"
    return "Canon RAW" if b"crx " in brands else "MP4 or QuickTime video"


def _is_tga(data: bytes) -> bool:
    """TGA has no signature at its start. Newer files have one at the end; of older ones all of the header must fit."""
    if len(data) < 18:
        return False
    id_bytes, has_map, kind, depth, flags = data[0], data[1], data[2], data[16], data[17]
    depths = {1: (8,), 2: (16, 24, 32), 3: (8, 16)}.get(kind & ~8, ())
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (12, 14))
    if kind & ~8 not in (1, 2, 3) or depth not in depths or flags & 0xC0 or not width or not height:
        return False
    if data[-18:] == b"TRUEVISION-XFILE.\0":
        return True
    colours, map_depth = int.from_bytes(data[5:7], "little"), data[7]
    if has_map != (kind & ~8 == 1) or (not has_map and data[3:8] != bytes(5)):
        return False
    if has_map and (map_depth not in (16, 24, 32) or not 1 <= colours <= 256):
        return False
    before_pixels = 18 + id_bytes + (colours * map_depth // 8 if has_map else 0)
    # The least that pixels take: a run of up to 128 pixels is a byte and a pixel. Truncated files are TGA files too.
    return len(data) > before_pixels and (not kind & 8 or len(data) >= before_pixels + 1 + depth // 8)


def raw_photo(data: bytes) -> str | None:
    """The name of the RAW format of a TIFF file; None if it is no RAW photo.

    A RAW photo is a TIFF file whose first picture is a small preview, or one of sensor samples: its tables name DNG,
    have a picture of a colour filter array (TIFF/EP) or of linear samples (DNG), or the first picture says that it is a
    smaller version of another one that is below it.
    """
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    if data[8:10] == b"CR":
        return "Canon RAW"
    if data[8:12] in (b"IIII", b"MMMM"):
        return "Phase One RAW"
    first: dict[int, tuple[int, int]] | None = None
    for tags in _directories(data, order):
        if first is None:
            first = tags
        is_samples = tags.get(_PHOTOMETRIC, (0, 0))[1] in (_COLOUR_FILTER_ARRAY, _LINEAR_RAW)
        has_larger = tags is first and tags.get(_SUBFILE_TYPE, (0, 0))[1] & 1 and _SUB_DIRECTORIES in tags
        if _DNG_VERSION in tags:
            return "DNG"
        if is_samples or has_larger:
            return _RAW_BY_MAKE.get(_make(data, first), "RAW")
    return None


def _make(data: bytes, tags: dict[int, tuple[int, int]]) -> str:
    """The maker's name as `_RAW_BY_MAKE` has it."""
    count, at = tags.get(_MAKE, (0, 0))
    words = data[at : at + min(count, 64)].partition(b"\0")[0].decode("latin-1").lower().split()
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in _RAW_BY_MAKE), "")


def _directories(data: bytes, order: Literal["little", "big"]) -> Iterator[dict[int, tuple[int, int]]]:
    """The directories of a TIFF file and those below them: tag -> (count, first value, or the offset of the values)."""
    big = data[2:4] in (b"+\0", b"\0+")
    offset_bytes, count_bytes, entry_bytes = (8, 8, 20) if big else (4, 2, 12)

    def number(at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], order)

    waiting, seen = [number(8 if big else 4, offset_bytes)], set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        start = waiting.pop(0)
        if start in seen or not 0 < start < len(data):
            continue
        seen.add(start)
        entries = number(start, count_bytes)
        if entries > 4096:
            continue
        tags: dict[int, tuple[int, int]] = {}
        stop = min(start + count_bytes + entries * entry_bytes, len(data))
        for at in range(start + count_bytes, stop, entry_bytes):
            tag, kind, count = number(at, 2), number(at + 2, 2), number(at + 4, offset_bytes)
            value_at = at + 4 + offset_bytes
            # A SHORT stands at the start of its field. BYTEs (DNGVersion) are not read, only that they are there.
            tags.setdefault(tag, (count, number(value_at, 2 if kind == 3 else offset_bytes)))
        yield tags
        below, value = tags.get(_SUB_DIRECTORIES, (0, 0))
        if below == 1:
            waiting.append(value)
        else:
            waiting += [number(value + i * offset_bytes, offset_bytes) for i in range(min(below, _MAX_DIRECTORIES))]
        waiting.append(number(stop, offset_bytes))
