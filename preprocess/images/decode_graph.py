"""The definition of an image in TensorFlow operations, for an exported model that takes encoded images.

The graph gives the same pixels as `images.decode` in every format that it accepts: JPEG, PNG, GIF, WebP and BMP, with
the exceptions that `decode_image_graph` names. If TensorFlow cannot decode an image, or decodes it to other pixels than
Pillow, the graph gives an error and never different pixels. It uses only plain operations (no `py_function`), so
it works inside `tf.data`, `tf.function` and a SavedModel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from preprocess.images.decode import IMAGE_SIZE, MAX_IMAGE_PIXELS, jpeg_reduced_side
from preprocess.images.definition import DEFAULT_SCALING, mean_and_std

NOT_READABLE = "image format not readable in the exported model; send it as PNG or JPEG"
_TOO_MANY_PIXELS = f"image of more than {MAX_IMAGE_PIXELS} pixels"

# What is wrong with an image, as far as its header shows. The position is the number in `_Decoded.refusal`; 0 is
# nothing. The reasons are those of `preprocess.images.decode`.
_REFUSALS = (
    "",
    f"unsupported_format: {NOT_READABLE}",
    f"too_many_pixels: {_TOO_MANY_PIXELS}",
    "empty_file: the file is empty",
)
_UNREADABLE, _TOO_LARGE, _EMPTY = 1, 2, 3
# Everything else: TensorFlow's decoders raise, and the graph cannot read what they say.
_DAMAGED = "corrupt: the image is damaged"

# Images of a batch that are decoded at the same time, as in `tf.map_fn`.
_PARALLEL_CALLS = 10

# Fractional bits of Pillow's fixed-point weights: 32 bits, minus 8 for the pixel, minus 2 against overflow.
_WEIGHT_BITS = 22


class _Content(NamedTuple):
    """The encoded image as numbers, so that headers can be parsed without reading out of bounds."""

    encoded: tf.Tensor  # string []
    octets: tf.Tensor  # uint8 [size + padding]
    size: tf.Tensor  # int64 []


class _Decoded(NamedTuple):
    """What a reader gives."""

    rgb: tf.Tensor  # uint8 [height, width, 3]; without content if the image is refused
    orientation: tf.Tensor  # int64 [], of EXIF
    refusal: tf.Tensor  # int32 [], a position in `_REFUSALS`


class _Span(NamedTuple):
    """The position of the EXIF block: int64 [] each; empty if there is no block."""

    start: tf.Tensor
    stop: tf.Tensor


# The operations of an exported model that have the decoded images and the errors. A frozen graph begins there.
DECODED_IMAGES = "decoded_images"
DECODING_ERRORS = "decoding_errors"


def decode_images_or_errors_graph(images: tf.Tensor, size: int = IMAGE_SIZE) -> tuple[tf.Tensor, tf.Tensor]:
    """`decode_image_graph` for a batch in which a bad image fails for itself alone.

    Args:
        images: string [batch].
        size: the side of the square that the backbone takes.

    Returns:
        The pixels, uint8 [batch, size, size, 3], all 0 for an image that cannot be decoded; and the errors, string
        [batch]: empty for an image that was decoded, otherwise `reason: message` with a reason of
        `preprocess.images.decode`: "empty_file", "unsupported_format", "too_many_pixels" or "corrupt".
    """

    def decode(row: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return row, *_decode_function(size)(image)

    with tf.device("/CPU:0"):
        # TensorFlow's decoders raise on damaged content, which would end the whole batch. In a graph, only a data set
        # can leave errors out. One data set of the batch, because to begin one takes milliseconds.
        count = tf.size(images, out_type=tf.int64)
        decoded = tf.data.Dataset.from_tensor_slices((tf.range(count), images))
        decoded = decoded.map(decode, num_parallel_calls=_PARALLEL_CALLS).ignore_errors(log_warning=False)
        # A row more keeps the batch from being empty if all images are damaged.
        nothing = tf.zeros([size, size, 3], tf.uint8)
        last = tf.data.Dataset.from_tensors((count, nothing, tf.constant(0)))
        rows, pixels, refusals = decoded.concatenate(last).batch(count + 1).get_single_element()
        rows = rows[:, tf.newaxis]
        pixels = tf.scatter_nd(rows, pixels, tf.concat([[count + 1], tf.shape(nothing, tf.int64)], axis=0))
        # No image is refused and damaged, so a position after the last refusal is free for damage.
        damaged = tf.fill([count + 1], len(_REFUSALS))
        refusals = tf.tensor_scatter_nd_update(damaged, rows, refusals)
        errors = tf.gather(tf.constant([*_REFUSALS, _DAMAGED]), refusals)
        pixels = tf.ensure_shape(pixels, [None, size, size, 3])[:-1]
        return tf.identity(pixels, name=DECODED_IMAGES), tf.identity(errors[:-1], name=DECODING_ERRORS)


def scale_pixels(pixels: tf.Tensor, scaling: str = DEFAULT_SCALING) -> tf.Tensor:
    """What a network takes: uint8 [..., 3] to float32 of the same shape, by one of `definition.SCALINGS`.

    "torch" and "caffe" have the numbers of `keras.applications.imagenet_utils.preprocess_input`.
    """
    values = tf.cast(pixels, tf.float32)
    if scaling == "tf":
        return values / 127.5 - 1.0
    if scaling == "torch":
        return (values / 255.0 - tf.constant([0.485, 0.456, 0.406])) / tf.constant([0.229, 0.224, 0.225])
    if scaling == "caffe":
        # A gather, since runtimes of other formats know it, and not all of them know how to reverse an axis.
        return tf.gather(values, [2, 1, 0], axis=-1) - tf.constant([103.939, 116.779, 123.68])
    if scaling == "unit":
        return values / 255.0
    if scaling == "none":
        return values
    given = mean_and_std(scaling)
    if given is None:
        raise ValueError(f"scaling: {scaling!r}")
    return (values - given[0]) / given[1]


def decode_image_graph(image: tf.Tensor, size: int = IMAGE_SIZE) -> tf.Tensor:
    """Decodes one encoded image to the pixels that `preprocess.images.decode.decode_image` gives.

    Args:
        image: string [], the bytes of a JPEG, PNG, GIF, WebP or BMP file.
        size: the side of the square that the backbone takes.

    Returns:
        uint8 [size, size, 3].

    Raises:
        tf.errors.InvalidArgumentError: when run, with `NOT_READABLE` in the message, for other formats (TIFF, AVIF,
            JPEG 2000, PPM), animated WebP, a GIF whose first frame does not fill its canvas, a BMP other than 24 or
            32 bits uncompressed, and a PNG of 3 x 16 bits with one clear colour; with another message for
            damaged content and for more than `MAX_IMAGE_PIXELS` pixels.
    """
    pixels, refusal = _decode(tf.convert_to_tensor(image, tf.string), size)
    with tf.device("/CPU:0"):
        checks = [tf.debugging.Assert(refusal != code, [_REFUSALS[code]]) for code in range(1, len(_REFUSALS))]
    with tf.control_dependencies(checks):
        return tf.identity(pixels)


def _decode(image: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels of an image, uint8 [size, size, 3], and the number of its refusal by the header, int32 [].

    The number is a position in `_REFUSALS`. If the image is refused, the pixels are all 0. If TensorFlow's
    decoder fails, running this raises an error.
    """
    with tf.device("/CPU:0"):  # the decoders exist only there, and headers are parsed number by number
        # If a header ends early, the padding is read as zeros, and no branch below accepts zeros.
        content = _Content(
            image,
            tf.io.decode_raw(tf.strings.join([image, tf.constant(b"\0" * 32)]), tf.uint8),
            tf.cast(tf.strings.length(image), tf.int64),
        )
        signatures = (
            _has(content, 0, b"\xff\xd8\xff"),
            _has(content, 0, b"\x89PNG\r\n\x1a\n"),
            _has(content, 0, b"GIF87a") | _has(content, 0, b"GIF89a"),
            _has(content, 0, b"RIFF") & _has(content, 8, b"WEBP"),
            _has(content, 0, b"BM"),
        )
        readers = (lambda content: _read_jpeg(content, size), _read_png, _read_gif, _read_webp, _read_bmp, _refuse)
        kind = tf.argmax(tf.stack([*signatures, tf.constant(True)]), output_type=tf.int32)
        branches = [lambda reader=reader: reader(content) for reader in readers]
        rgb, orientation, refusal = tf.switch_case(kind, branches)
        return _turn_upright(_resize(rgb, size), orientation), refusal


@functools.cache
def _decode_function(size: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """`_decode` for one size, traced once in a process: that takes a second, and an export needs it twice."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda image: _decode(image, size), input_signature=signature, autograph=False)


def _unless_refused(refusal: tf.Tensor, read: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Calls a decoder if the header shows no reason against it: uint8 [height, width, 3]."""
    rgb = tf.cond(refusal == 0, read, lambda: tf.zeros([1, 1, 3], tf.uint8))
    return tf.ensure_shape(rgb, [None, None, 3])


def _read_jpeg(content: _Content, size: int) -> _Decoded:
    shape = tf.cast(tf.io.extract_jpeg_shape(content.encoded), tf.int64)
    refusal = _refusal(width=shape[1], height=shape[0])
    reduction = tf.minimum(shape[0], shape[1]) // jpeg_reduced_side(size)
    step = sum(tf.cast(reduction >= ratio, tf.int32) for ratio in (2, 4, 8))

    def at_ratio(ratio: int) -> tf.Tensor:
        # The default DCT is a faster approximation, up to 21 grey levels away from Pillow's.
        return tf.io.decode_jpeg(content.encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    branches = [lambda ratio=ratio: at_ratio(ratio) for ratio in (1, 2, 4, 8)]
    rgb = _unless_refused(refusal, lambda: tf.switch_case(step, branches))

    def walk(at: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker = _integer(content, at + 1, 1)
        after = at + 2 + _integer(content, at + 2, 2)
        is_exif = (marker == 0xE1) & _has(content, at + 4, b"Exif\0\0")
        is_last = is_exif | (marker == 0xD9) | (marker == 0xDA)
        following = tf.where(marker == 0xFF, at + 1, after)
        start, stop = tf.where(is_exif, at + 4, start), tf.where(is_exif, after, stop)
        return tf.where(is_last, content.size, following), start, stop

    zero = tf.constant(0, tf.int64)
    _, start, stop = tf.while_loop(
        lambda at, *_: (at + 4 <= content.size) & (_integer(content, at, 1) == 0xFF),
        walk,
        (zero + 2, zero, zero),
    )
    return _Decoded(rgb, _exif_orientation(content, _Span(start, stop)), refusal)


def _read_png(content: _Content) -> _Decoded:
    def walk(at: tf.Tensor, start: tf.Tensor, stop: tf.Tensor, clear: tf.Tensor, in_data: tf.Tensor) -> tuple:
        after = at + 8 + _integer(content, at, 4)
        chunk = _integer(content, at + 4, 4)
        is_first_exif = (chunk == _word(b"eXIf")) & (stop == 0)
        start, stop = tf.where(is_first_exif, at + 8, start), tf.where(is_first_exif, after, stop)
        in_data = in_data | (chunk == _word(b"IDAT"))
        clear = clear | ((chunk == _word(b"tRNS")) & ~in_data)
        return tf.where(chunk == _word(b"IEND"), content.size, after + 4), start, stop, clear, in_data

    zero, false = tf.constant(0, tf.int64), tf.constant(False)
    _, start, stop, has_clear, _ = tf.while_loop(
        lambda at, *_: at + 8 <= content.size, walk, (zero + 8, zero, zero, false, false)
    )
    depth, colour_type = _integer(content, 24, 1), _integer(content, 25, 1)
    refusal = _refusal(
        width=_integer(content, 16, 4),
        height=_integer(content, 20, 4),
        # libpng compares all 16 bits with the transparent colour. Pillow compares only the high 8 bits.
        is_readable=~(has_clear & (depth == 16) & (colour_type == 2)),
    )

    def read() -> tf.Tensor:
        # If the file has no alpha channel, TensorFlow gives a wrong one for depths below 8 bits.
        return tf.cond(
            has_clear | (colour_type >= 4),
            lambda: _over_white(tf.io.decode_png(content.encoded, channels=4)),
            lambda: tf.io.decode_png(content.encoded, channels=3),
        )

    return _Decoded(_unless_refused(refusal, read), _exif_orientation(content, _Span(start, stop)), refusal)


def _read_gif(content: _Content) -> _Decoded:
    flags = _integer(content, 10, 1)
    colours_size = tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags & 7), 0)

    def walk(at: tf.Tensor, is_data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # An extension (0x21) has a label and then data blocks. Each block begins with its length; the last length is 0.
        octet = _integer(content, at, 1)
        return tf.where(is_data, at + 1 + octet, at + 2), ~is_data | (octet != 0)

    at, _ = tf.while_loop(
        lambda at, is_data: (at < content.size) & (is_data | (_integer(content, at, 1) == 0x21)),
        walk,
        (13 + colours_size, tf.constant(False)),
    )
    # The first frame must fill the canvas. If it does not, TensorFlow shrinks the canvas to the frame.
    canvas = [_integer(content, offset, 2, little=True) for offset in (6, 8)]
    frame = [_integer(content, at + offset, 2, little=True) for offset in (1, 3, 5, 7)]
    fills = (frame[0] == 0) & (frame[1] == 0) & (frame[2] == canvas[0]) & (frame[3] == canvas[1])
    is_frame = (at < content.size) & (_integer(content, at, 1) == 0x2C)
    refusal = _refusal(width=canvas[0], height=canvas[1], is_readable=fills & is_frame)
    rgb = _unless_refused(refusal, lambda: tf.io.decode_image(content.encoded, channels=3, expand_animations=False))
    return _Decoded(rgb, tf.constant(1, tf.int64), refusal)


def _read_webp(content: _Content) -> _Decoded:
    is_extended, is_lossless = _has(content, 12, b"VP8X"), _has(content, 12, b"VP8L")
    packed = _integer(content, 21, 4, little=True)
    lossy = [_integer(content, at, 2, little=True) & 0x3FFF for at in (26, 28)]
    lossless = [
        (packed & 0x3FFF) + 1,
        (tf.bitwise.right_shift(packed, tf.constant(14, tf.int64)) & 0x3FFF) + 1,
    ]
    extended = [_integer(content, at, 3, little=True) + 1 for at in (24, 27)]
    width, height = (
        tf.where(is_extended, extended[axis], tf.where(is_lossless, lossless[axis], lossy[axis])) for axis in (0, 1)
    )
    # For some animations TensorFlow 2.21 writes past the end of its buffer, so they must not reach the decoder.
    is_animated = is_extended & (_integer(content, 20, 1) & 2 != 0)
    refusal = _refusal(width=width, height=height, is_readable=~is_animated)

    def read() -> tf.Tensor:
        frame = tf.io.decode_webp(content.encoded, channels=0)[0]
        return tf.cond(tf.shape(frame)[2] == 4, lambda: _over_white(frame), lambda: frame)

    def walk(at: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = _integer(content, at + 4, 4, little=True)
        is_exif = _has(content, at, b"EXIF")
        start, stop = tf.where(is_exif, at + 8, start), tf.where(is_exif, at + 8 + size, stop)
        return tf.where(is_exif, content.size, at + 8 + size + size % 2), start, stop

    zero = tf.constant(0, tf.int64)
    _, start, stop = tf.while_loop(lambda at, *_: at + 8 <= content.size, walk, (zero + 12, zero, zero))
    return _Decoded(_unless_refused(refusal, read), _exif_orientation(content, _Span(start, stop)), refusal)


def _read_bmp(content: _Content) -> _Decoded:
    # TensorFlow decodes palettes, run lengths and bit masks wrongly or not at all. A fourth byte without a mask is not
    # alpha.
    header, compression = (_integer(content, at, 4, little=True) for at in (14, 30))
    bits = _integer(content, 28, 2, little=True)
    is_plain = (compression == 0) & (((bits == 24) & (header >= 40)) | ((bits == 32) & (header == 40)))
    width, height = (_integer(content, at, 4, little=True) for at in (18, 22))
    height = tf.where(height >= 2**31, 2**32 - height, height)  # negative: rows from the top
    refusal = _refusal(width=width, height=height, is_readable=is_plain)
    rgb = _unless_refused(refusal, lambda: tf.io.decode_bmp(content.encoded, channels=0)[:, :, :3])
    return _Decoded(rgb, tf.constant(1, tf.int64), refusal)


def _refuse(content: _Content) -> _Decoded:
    refusal = tf.where(content.size == 0, _EMPTY, _UNREADABLE)
    return _Decoded(tf.zeros([1, 1, 3], tf.uint8), tf.constant(1, tf.int64), refusal)


def _refusal(*, width: tf.Tensor, height: tf.Tensor, is_readable: bool | tf.Tensor = True) -> tf.Tensor:
    """The position in `_REFUSALS`, int32 [], for an image of this size; `is_readable` is about its format."""
    of_size = tf.where(width * height > MAX_IMAGE_PIXELS, _TOO_LARGE, 0)
    return tf.where(is_readable, of_size, _UNREADABLE)


def _integer(content: _Content, at: tf.Tensor | int, width: int, *, little: bool | tf.Tensor = False) -> tf.Tensor:
    """The unsigned integer of `width` octets at offset `at`, int64 []; octets past the end count as zeros."""
    at = tf.minimum(tf.cast(at, tf.int64), content.size)
    octets = tf.cast(content.octets[at : at + width], tf.int64)
    powers = [256**i for i in range(width)]
    return tf.reduce_sum(octets * tf.where(little, tf.constant(powers, tf.int64), tf.constant(powers[::-1], tf.int64)))


def _has(content: _Content, at: tf.Tensor | int, octets: bytes) -> tf.Tensor:
    """Whether `octets` stand at offset `at`: bool []."""
    at = tf.minimum(tf.cast(at, tf.int64), content.size)
    return tf.reduce_all(content.octets[at : at + len(octets)] == tf.constant(list(octets), tf.uint8))


def _word(name: bytes) -> int:
    return int.from_bytes(name, "big")


def _exif_orientation(content: _Content, block: _Span) -> tf.Tensor:
    """The orientation in an EXIF block, 1 to 8, int64 []. It does the same steps as `preprocess.images.decode`."""
    start, stop = block.start, tf.minimum(block.stop, content.size)
    start = tf.where(_has(content, start, b"Exif\0\0"), start + 6, start)
    little = _has(content, start, b"II*\0")
    directory = start + 2 + _integer(content, start + 4, 4, little=little)
    count = _integer(content, directory - 2, 2, little=little)
    count = tf.clip_by_value((stop - directory) // 12, 0, count)
    count = tf.where(little | _has(content, start, b"MM\0*"), count, 0)
    directory = tf.minimum(directory, content.size)
    entries = tf.reshape(content.octets[directory : directory + 12 * count], [-1, 12])
    # Little-endian numbers have the same octets in reverse order.
    octets = tf.cast(tf.gather(entries, tf.where(little, [1, 0, 3, 2, 9, 8], [0, 1, 2, 3, 8, 9]), axis=1), tf.int64)
    numbers = octets[:, ::2] * 256 + octets[:, 1::2]  # of each entry: tag, type, value
    values = tf.boolean_mask(numbers[:, 2], (numbers[:, 0] == 0x0112) & (numbers[:, 1] == 3))
    value = tf.concat([values, [1]], axis=0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation on square pixels: uint8 [size, size, 3]."""

    def turn() -> tf.Tensor:
        turned = tf.where(orientation >= 5, tf.transpose(pixels, [1, 0, 2]), pixels)
        mirrors = tf.constant([2, 3, 6, 7], tf.int64), tf.constant([3, 4, 7, 8], tf.int64)
        turned = tf.where(tf.reduce_any(orientation == mirrors[0]), tf.reverse(turned, [1]), turned)
        return tf.where(tf.reduce_any(orientation == mirrors[1]), tf.reverse(turned, [0]), turned)

    return tf.cond(orientation == 1, lambda: pixels, turn)


def _over_white(rgba: tf.Tensor) -> tf.Tensor:
    """Composites over white before any resampling: uint8 [height, width, 4] to uint8 [height, width, 3]."""
    # Sixteen bits are enough, because the largest value is 255 * 255 + 128 + 254. They need half the memory of int32.
    colour, alpha = tf.cast(rgba[:, :, :3], tf.uint16), tf.cast(rgba[:, :, 3:], tf.uint16)
    eight = tf.constant(8, tf.uint16)
    blend = colour * alpha + 255 * (255 - alpha) + 128
    # (x + 128 + ((x + 128) >> 8)) >> 8 is (x + 127) // 255 for every x up to 255 * 255.
    return tf.cast(tf.bitwise.right_shift(blend + tf.bitwise.right_shift(blend, eight), eight), tf.uint8)


def _resize(rgb: tf.Tensor, size: int = IMAGE_SIZE) -> tf.Tensor:
    """Pillow's 8-bit `resize((size, size), BILINEAR)`: uint8 [height, width, 3] to uint8 [size, size, 3].

    `tf.image.resize(antialias=True)` rounds once, in floating point; Pillow rounds to 8 bits after each direction,
    columns first, with weights of 22 bits. Only the same arithmetic gives the same pixels.
    """
    height, width = tf.unstack(tf.shape(rgb)[:2])
    # In very tall images Pillow resizes the rows first. The second resize, to the same number of rows, changes nothing.
    rgb = tf.cond(
        (height > 100 * width) & (height > size),
        lambda: tf.reshape(_resample(tf.reshape(rgb, [height, width * 3]), size), [size, width, 3]),
        lambda: rgb,
    )
    height = tf.shape(rgb)[0]
    columns = tf.reshape(tf.transpose(rgb, [1, 0, 2]), [width, height * 3])
    columns = tf.reshape(_resample(columns, size), [size, height, 3])
    rows = tf.reshape(tf.transpose(columns, [1, 0, 2]), [height, size * 3])
    return tf.reshape(_resample(rows, size), [size, size, 3])


def _resample(lines: tf.Tensor, size: int) -> tf.Tensor:
    """Reduces or enlarges uint8 [any, n] to uint8 [size, n] along the first axis."""
    first, weights = _weights(tf.shape(lines)[0], size)
    last_line = tf.shape(lines)[0] - 1

    def add_tap(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # This computes one tap of all outputs at a time. All taps at once would need `taps` times the memory.
        line = tf.gather(lines, tf.minimum(first + tap, last_line))
        return tap + 1, total + tf.cast(line, tf.int32) * weights[tap][:, tf.newaxis]

    half = tf.fill([size, tf.shape(lines)[1]], 1 << (_WEIGHT_BITS - 1))
    _, total = tf.while_loop(
        lambda tap, _: tap < tf.shape(weights)[0], add_tap, (tf.constant(0), half), parallel_iterations=1
    )
    # Nothing must be clipped: weights are positive, and their sum is so close to 1 that no grey level changes.
    return tf.cast(tf.bitwise.right_shift(total, tf.constant(_WEIGHT_BITS)), tf.uint8)


def _weights(count: tf.Tensor, size: int = IMAGE_SIZE) -> tuple[tf.Tensor, tf.Tensor]:
    """Pillow's `precompute_coeffs` for a triangle filter, operation by operation in float64.

    Returns:
        The first of `count` input lines of each output line, int32 [size]; fixed-point weights, int32 [taps, size].
    """
    # `/` is not used: the graph optimizer replaces a division by a constant by a product with its reciprocal. The last
    # bit of the result then changes the weights of one size in thirty.
    scale = tf.math.divide_no_nan(tf.cast(count, tf.float64), tf.constant(size, tf.float64))
    support = tf.maximum(scale, 1.0)
    center = (tf.range(size, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(center - support + 0.5, tf.int32), 0)
    stop = tf.minimum(tf.cast(center + support + 0.5, tf.int32), count)
    line = first + tf.range(tf.reduce_max(stop - first))[:, tf.newaxis]
    distance = tf.abs((tf.cast(line, tf.float64) - center + 0.5) * (1.0 / support))
    weights = tf.where(line < stop, tf.maximum(1.0 - distance, 0.0), 0.0)
    # The cumulative sum adds in the same order as Pillow. `reduce_sum` may add in another order, and then the last bit
    # differs.
    weights = weights / tf.cumsum(weights)[-1]
    return first, tf.cast(0.5 + weights * (1 << _WEIGHT_BITS), tf.int32)
