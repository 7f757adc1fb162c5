"""What a file is, by its content and by its name; the formats that are read beside those of the exported model."""

import base64
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from preprocess.images import decode, formats
from preprocess.images.decode import IMAGE_SIZE, ImageError, decode_image
from preprocess.images.formats import FORMATS, format_by_content, format_by_name, is_image_name, is_raw_name
from preprocess.images.isolated_decoder import IsolatedDecoder
from tests.support.image_corpus import encode, photo, png, png_chunk
from tests.support.mutated_corpus import tiff

# A red corner, top left, on 96 x 64 light pixels; EXIF orientation 6, which libheif turns: 64 x 96, red at top right.
HEIC = base64.b85decode(
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004@ZDn*}000000000XXk=`10000000000aA{+700000000000000000000G-"
    "+&aV*mgE07O6l0ssL300001#Q*^S00000005Q%0ssI200LV80RR9100000DgXcgIB98aW&i*H00062000$fZf0cy000000RRAKc4ILB0000LX>"
    "Mj^0ssI300IC2MR;ju000004sdC7Z2$lO00031007`=aB^?}006*gaAR)(004Msc4I>U18@KU0FVFx0000U@BsY%`1k+-"
    "4+CHT0RR|40Sp2E{{wIU00RJ!0009300RIXx&lC90096iLID8-"
    "Z~y=U0FVFx0{{R603M()fd!W8Nhz*w0vZem00093$N&HX00=;000968L;=Baup&SJ000wXZ)|dIV{CW;0RRmE27mwn02FC+aAg1h000000AK(B"
    "06+i$01$9#cxeCt0009B2nYZG010VwZ*&6y000<iaBX1#00000000310R@2q0|bQt000_ka%E-"
    "!00000000hSWOHKx0ssL30RR91$Zcd{bN~PVk|+VM3E<;{oVu_7{y`uA{xKVn{fiHzf>L?=Y%iVhsh|Hddb*Aa5SJADy$%WYs(@v(9a-"
    "AC!b@{g9umMW#sOQroz)wv-NZlU-E#PBg4zfk>H)Em4^p2&nO*_sBv1}nkjHQ-"
    "fA&5YBj>D}|68O}wNBhXS)Jx;<8yeIZ0g0)hw<DR6GS$tI4vTn<>7Du0000<Nh$yc0000201p8I00aO4002WmK@tH20096100sa60000000"
)


def outcome_of(data):
    """The pixels, or reason and message."""
    try:
        return decode_image(data)
    except ImageError as error:
        return error.reason, error.message


def resized(image):
    return np.asarray(image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))


def test_names_and_endings_are_unique_and_every_format_that_is_read_has_a_reader():
    assert len({one.name for one in FORMATS}) == len(FORMATS)
    endings = [ending for one in FORMATS for ending in one.extensions]
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower().strip(".") for ending in endings)
    assert {one.name for one in FORMATS if one.is_read} - {"HEIC"} == set(decode._READERS) - {"HEIC"}


def test_names():
    assert is_image_name("a/b.c/photo.JPG") and is_image_name("x.psd") and not is_image_name("jpg")
    assert not is_image_name("a.jpg/readme") and not is_image_name(".png") and not is_image_name("drawing.svg")
    assert is_raw_name("DSC_0001.NEF") and is_raw_name("a.dng") and not is_raw_name("a.tif")
    assert format_by_name("no-ending") is None and format_by_name("a.unknown") is None


def test_heic_by_name_needs_its_package(monkeypatch):
    for is_there in (True, False):
        monkeypatch.setattr(formats, "_has_heif", lambda is_there=is_there: is_there)
        assert is_image_name("IMG_0001.HEIC") == is_there


# A file of each format, by PIL's name or made by hand.
@pytest.mark.parametrize(
    ("written_as", "name"),
    [
        ("JPEG", "JPEG"), ("PNG", "PNG"), ("GIF", "GIF"), ("WEBP", "WebP"), ("TIFF", "TIFF"), ("AVIF", "AVIF"),
        ("JPEG2000", "JPEG 2000"), ("BMP", "BMP"), ("PPM", "PPM"), ("TGA", "TGA"), ("ICO", "ICO"), ("DDS", "DDS"),
        ("QOI", "QOI"), ("MPO", "JPEG"), ("SGI", "SGI"), ("PCX", "PCX"), ("ICNS", "ICNS"), ("EPS", "EPS"),
        ("PDF", "PDF"),
    ],
)  # fmt: skip
def test_content_tells_the_format(written_as, name):
    data = encode(photo(64, 48), written_as)
    found = format_by_content(data)
    assert found is not None and found.name == name
    if found.is_read:
        assert outcome_of(data).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    else:
        reason, message = outcome_of(data)
        assert reason == "unsupported_format" and message.startswith(f"{name} is not read; convert it")


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "unsupported_format", "Canon RAW is not read; export it"),
        (b"FUJIFILMCCD-RAW 0201", "unsupported_format", "Fujifilm RAW is not read; export it"),
        (b"IIU\0\x18\0\0\0", "unsupported_format", "Panasonic RAW"),
        (b"II*\0\x10\0\0\0CR\2\0", "unsupported_format", "Canon RAW"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "unsupported_format", "video is not read; extract pictures"),
        (bytes(128) + b"DICM", "unsupported_format", "DICOM"),
        (bytes(344) + b"n+1\0", "unsupported_format", "NIfTI"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg>", "unsupported_format", "SVG"),
        (b"\xff\x0a\xfa", "unsupported_format", "JPEG XL"),
        (b"8BPS\0\2", "unsupported_format", "PSB"),
        (b"\n\n<!DOCTYPE html><title>404</title>", "not_an_image", "an HTML page"),
        (b"\xef\xbb\xbf<html>", "not_an_image", "an HTML page"),
        (b'{"error": "not found"}', "not_an_image", "JSON"),
        (b"PK\3\4\x14", "not_an_image", "a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not_an_image", "git lfs pull"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "not_an_image", "AppleDouble"),
        (b"data:image/jpeg;base64,/9j/", "not_an_image", "a data URI"),
        (base64.b64encode(encode(photo(8, 8), "JPEG")), "not_an_image", "a JPEG that is encoded as text"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08", "unsupported_format", "JPEG-LS"),
        (encode(photo(8, 8), "JPEG").replace(b"\xff\xc0", b"\xff\xc3"), "unsupported_mode", "a lossless"),
        (encode(photo(8, 8), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "unsupported_mode", "12-b"),
        (tiff(8, 8, {259: 50002}, bytes(64)), "unsupported_mode", "50002"),
        (b"P1 some words", "not_an_image", "starts with b'P1 some word'"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(content, reason, words):
    found, message = outcome_of(content)
    assert found == reason and words in message


def directory(*entries):
    """A directory of a TIFF file: (tag, type, count, value or offset)."""
    packed = b"".join(
        struct.pack("<HHIHH", *entry, 0) if entry[1] == 3 else struct.pack("<HHII", *entry) for entry in sorted(entries)
    )
    return struct.pack("<H", len(entries)) + packed + bytes(4)


def raw_file(make, *, thumbnail=(), sensor=((262, 3, 1, 32803),)):
    """A TIFF file as cameras write RAW photos: a preview, and below it the picture of the sensor."""
    grey = bytes(range(96)) * 50
    count = 12 + len(thumbnail)
    first_at = 8 + len(grey) + 32
    below_at = first_at + 2 + 12 * count + 4
    first = directory(
        (254, 4, 1, 1), (256, 4, 1, 80), (257, 4, 1, 60), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (271, 2, 32, 8 + len(grey)), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 60), (279, 4, 1, 4800),
        (330, 4, 1, below_at), *thumbnail,
    )  # fmt: skip
    return struct.pack("<2sHI", b"II", 42, first_at) + grey + make.ljust(32, b"\0") + first + directory(*sensor)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (raw_file(b"NIKON CORPORATION"), "Nikon RAW"),
        (raw_file(b"SONY"), "Sony RAW"),
        (raw_file(b"PENTAX"), "Pentax RAW"),
        (raw_file(b"RICOH IMAGING COMPANY, LTD."), "Pentax RAW"),
        (raw_file(b"SAMSUNG"), "Samsung RAW"),
        (raw_file(b"Somebody"), "RAW"),
        (raw_file(b"Apple", thumbnail=[(50706, 1, 4, 0x0401)], sensor=[(262, 3, 1, 34892)]), "DNG"),
        # The sensor's picture is of a kind that nobody knows, but the first one says that it is the smaller of two.
        (raw_file(b"Somebody", sensor=[(256, 4, 1, 4000)]), "RAW"),
        # A DNG that begins with the sensor's picture.
        (tiff(80, 60, {262: 32803, 50706: 1}, bytes(4800)), "DNG"),
    ],
)
def test_a_raw_photo_is_refused_and_not_its_preview_embedded(data, name):
    Image.open(decode.io.BytesIO(data)).close() if name != "DNG" else None  # Pillow sees a picture of 80 x 60
    assert outcome_of(data) == (
        "unsupported_format",
        f"{name} is not read; export it as JPEG from the camera or a photo program",
    )
    assert outcome_of(data.replace(b"II*\0", b"II*\0"))[0] == "unsupported_format"


def test_tiff_files_of_cameras_scanners_and_microscopes_are_no_raw_photos():
    exported = encode(photo(80, 60), "TIFF", tiffinfo={271: "NIKON CORPORATION", 254: 0})
    pyramid = encode(photo(80, 60), "TIFF", save_all=True, append_images=[photo(40, 30), photo(20, 15)])
    big = encode(photo(80, 60), "TIFF", big_tiff=True)
    for data in (exported, pyramid, big):
        np.testing.assert_array_equal(outcome_of(data), resized(photo(80, 60)))


def test_directories_of_a_tiff_that_lead_in_circles_end():
    data = bytearray(tiff(8, 8, {330: 8}, bytes(64)))
    data[-4:] = data[4:8]
    assert outcome_of(bytes(data)).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


def test_twelve_bits_are_not_black():
    samples = (np.add.outer(np.arange(IMAGE_SIZE), np.arange(IMAGE_SIZE)) * 6).astype(np.uint16)  # up to 3576
    samples = np.pad(samples, ((0, 0), (0, 1)))
    first, second = samples[:, ::2].astype(int), samples[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    data = tiff(IMAGE_SIZE + 1, IMAGE_SIZE, {258: 12}, packed.tobytes())
    expected = Image.fromarray((samples >> 4).astype(np.uint8))
    np.testing.assert_array_equal(outcome_of(data), resized(expected))


def test_an_ome_tiff_says_how_many_bits_its_camera_has():
    samples = np.arange(IMAGE_SIZE**2, dtype=np.uint16).reshape(IMAGE_SIZE, IMAGE_SIZE) % 4096
    ome = '<?xml version="1.0"?><OME><Pixels Type="uint16" SignificantBits="12"/></OME>'
    image = Image.fromarray(samples)
    as_said = outcome_of(encode(image, "TIFF", tiffinfo={270: ome}))
    np.testing.assert_array_equal(as_said[..., 0], samples >> 4)
    # Samples that are larger than the file says are white.
    assert outcome_of(encode(Image.fromarray(samples * 16), "TIFF", tiffinfo={270: ome})).max() == 255


def test_what_describes_one_image_does_not_scale_it():
    """Two images of a series stay comparable: neither the largest sample nor a display range changes pixels."""
    samples = np.full((8, 8), 4000, np.uint16)
    for tags in ({281: 4095}, {341: 4095}, {270: "ImageJ=1.53\nmin=0.0\nmax=4095.0\n"}):
        assert outcome_of(encode(Image.fromarray(samples), "TIFF", tiffinfo=tags)).max() == 4000 >> 8


TEXT = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20)))
PROFILE = png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 << 20)))
LONG = png_chunk(b"tEXt", b"Raw profile type exif\0" + b"x" * (2 << 20))
BAD_CRC = png_chunk(b"gAMA", b"\0\1\x86\xa0")[:-1] + b"?"


@pytest.mark.parametrize(
    "extra",
    [TEXT, PROFILE, TEXT * 70, LONG, BAD_CRC, png_chunk(b"iCCP", b"p\0\1"), png_chunk(b"pHYs", b"\0"),
     png_chunk(b"acTL", bytes(8))],
    ids=["text", "profile", "200 MiB of text", "long text", "bad checksum", "unknown method", "short", "animation"],
)  # fmt: skip
def test_what_a_png_says_beside_its_pixels_makes_it_neither_corrupt_nor_different(extra):
    plain = outcome_of(png(60, 40, 8, 2))
    for position in ("before_data", "after_data"):
        data = png(60, 40, 8, 2, **{position: extra})
        np.testing.assert_array_equal(outcome_of(data), plain)


def test_damage_to_what_decides_the_pixels_of_a_png_is_found():
    palette = png_chunk(b"PLTE", bytes(range(48)))
    assert outcome_of(png(60, 40, 4, 3, before_data=palette[:-1] + b"?"))[0] == "corrupt"


def test_tga_is_told_from_other_bytes():
    image = photo(30, 20)
    for options in ({}, {"compression": "tga_rle"}, {"orientation": 1}, {"id_section": b"name"}):
        np.testing.assert_array_equal(outcome_of(encode(image, "TGA", **options)), resized(image))
    rng = np.random.default_rng(0)
    others = [rng.bytes(400) for _ in range(2000)] + [bytes(400), b"\0\0\2\0" + b"some text that is no picture" * 9]
    assert sum(format_by_content(data) is not None for data in others) <= 2


def test_tga_alpha_counts_only_where_the_file_says_so():
    clear = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    data = bytearray(encode(clear, "TGA"))
    assert outcome_of(bytes(data)).min() == 255
    data[17] &= 0xF0  # no bits of alpha, as many programs write it, with zeros in the fourth byte
    assert outcome_of(bytes(data))[0, 0].tolist() == [200, 100, 50]


def psd(channels, *, mode=3, depth=8, resources=b""):
    """A PSD file with a merged picture and no layers: uint8 [channels, height, width]."""
    count, height, width = channels.shape
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, count, height, width, depth, mode)
    return header + bytes(4) + struct.pack(">I", len(resources)) + resources + bytes(4) + bytes(2) + channels.tobytes()


def resource(kind, body):
    return b"8BIM" + struct.pack(">H", kind) + bytes(2) + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)


def test_psd():
    image = photo(40, 30)
    planes = np.moveaxis(np.asarray(image), -1, 0)
    np.testing.assert_array_equal(outcome_of(psd(planes)), resized(image))
    # The merged picture is on white already; the fourth channel is its alpha, or any mask.
    with_mask = np.concatenate([planes, np.zeros((1, 30, 40), np.uint8)])
    np.testing.assert_array_equal(outcome_of(psd(with_mask)), resized(image))
    merged = resource(1005, b"odd") + resource(1057, struct.pack(">IB", 1, 1) + bytes(12))
    np.testing.assert_array_equal(outcome_of(psd(planes, resources=merged)), resized(image))
    white = resource(1005, b"odd") + resource(1057, struct.pack(">IB", 1, 0) + bytes(12))
    reason, message = outcome_of(psd(planes, resources=white))
    assert reason == "unsupported_mode" and "Maximize Compatibility" in message
    assert outcome_of(psd(planes, mode=7))[0] == "unsupported_mode"
    assert outcome_of(psd(planes, depth=16))[0] == "unsupported_mode"
    ink = psd(255 - np.concatenate([planes, np.zeros((1, 30, 40), np.uint8)]), mode=4)
    assert outcome_of(ink).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


def test_an_icon_gives_its_largest_picture_and_no_bomb():
    image = photo(64, 64)
    data = encode(image, "ICO", sizes=[(16, 16), (64, 64)])
    np.testing.assert_array_equal(outcome_of(data), resized(image))
    huge = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 99, 22) + b"\x89PNG\r\n\x1a\n" + huge
    assert outcome_of(bomb)[0] == "too_many_pixels"
    bitmap = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 99, 22) + struct.pack(
        "<IiiHHIIiiII", 40, 60_000, 120_000, 1, 32, 0, 0, 0, 0, 0, 0
    )
    assert outcome_of(bitmap)[0] == "too_many_pixels"


def test_a_rare_kind_of_a_format_is_not_called_corrupt():
    for data in (tiff(8, 8, {258: 14}, bytes(112)), encode(photo(8, 8), "BMP")[:28] + b"\2" + bytes(60)):
        assert outcome_of(data)[0] == "unsupported_mode"


def test_without_its_package_heic_says_what_to_install(monkeypatch):
    monkeypatch.setattr(formats, "_has_heif", lambda: False)
    assert outcome_of(HEIC) == (
        "unsupported_format",
        "HEIC is not read; install the extra heif (pip install '.[heif]'), or convert it to JPEG",
    )


@pytest.mark.skipif(decode.pi_heif is None, reason="the extra heif is not installed")
def test_heic_is_read_upright_in_the_confined_process():
    pixels = decode_image(HEIC)
    light, red = pixels[[20, -20, -20], [20, 20, -20]].astype(int), pixels[20, -20].astype(int)
    assert abs(light - 240).max() < 25 and red[0] > 150 and red[1:].max() < 90
    np.testing.assert_array_equal(IsolatedDecoder(deadline_sec=30)(HEIC), pixels)
    for length in range(1, len(HEIC), 29):
        result = outcome_of(HEIC[:length])
        assert isinstance(result, np.ndarray) or result[0] in ("corrupt", "truncated", "not_an_image")
