/* The loops over pixels that `preprocess.images.resample` and `preprocess.images.perceptual_hash` take from a compiler.
 *
 * They are optional: without them, Pillow and NumPy do the same in several times the time. Every number here is a whole
 * number, so both give the same bits, and it does not matter which machine has this file compiled.
 *
 * `resize` is Pillow's 8-bit `resize(..., BILINEAR)`: a triangle filter as wide as the reduction, first along the rows,
 * then along the columns, each time rounded to 8 bits. Its weights are fixed-point numbers with 22 fractional bits.
 * Pillow multiplies them one by one. SIMD multiplies pairs of 16-bit numbers fastest, so a weight w is split without
 * loss into w = 2048 high + low, with high from 0 to 2048 and low from 0 to 2047:
 *
 *     sum(w * pixel) = 2048 * sum(high * pixel) + sum(low * pixel)
 *
 * Each sum is exact: it has at most MAX_TAPS terms, and stays below 2^31. The result needs no clipping: the weights are
 * not negative, and their sum differs from 2^22 by at most half the number of terms, so 255 is never exceeded.
 *
 * The rows that the second direction needs are kept in a ring, which stays in the cache of the core.
 */

#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX2_CODE 1
#include <immintrin.h>
#endif

#define WEIGHT_BITS 22
#define LOW_BITS 11
#define ROUND (1 << (WEIGHT_BITS - 1))
/* More terms are left to Pillow (a picture that is 2048 times as large as the square). */
#define MAX_TAPS 4096
#define GROUP 4           /* terms that are handled together */
#define OUTPUTS_AT_ONCE 4 /* by SIMD */
#define ROW_PADDING 64    /* bytes after a row that SIMD may read and write */

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST ""
#endif

/* The Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html), a stable ABI. Pillow gives its
 * pixels through it without a copy. */
struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* The weights of one direction: output i is the sum over t of weights[i * taps + t] * input[first[i] + t]. */
typedef struct {
    int outputs;
    int taps;     /* terms of each output; those that an output does not need have the weight 0 */
    int *first;
    int *count;   /* terms that an output needs */
    int32_t *weights;
    int32_t *pairs; /* the same for SIMD: of each group of 4 terms high 0|1, high 2|3, low 0|1, low 2|3 */
} Axis;

static void
free_axis(Axis *axis) {
    free(axis->first);
    free(axis->count);
    free(axis->weights);
    free(axis->pairs);
}

static double
triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Computes the weights exactly as Pillow does: in double precision, in the same order. The compiler may not join a
 * product and a sum (-ffp-contract=off), since that would round differently.
 *
 * Returns 0, or -1 without memory, or 1 if there are too many terms.
 */
static int
make_axis(Axis *axis, int size, float begin, float end, int outputs, int reversed) {
    double scale = (double)(end - begin) / outputs;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double inverse = 1.0 / stretch;
    int most = (int)ceil(stretch) * 2 + 1;
    double *term;
    int i, t, taps = 1;

    memset(axis, 0, sizeof(*axis));
    if (most > MAX_TAPS) {
        return 1;
    }
    axis->outputs = outputs;
    axis->first = calloc(outputs + OUTPUTS_AT_ONCE, sizeof(int)); /* SIMD computes some more */
    axis->count = malloc(outputs * sizeof(int));
    axis->weights = calloc((size_t)outputs * (most + GROUP), sizeof(int32_t));
    term = malloc(most * sizeof(double));
    if (!axis->first || !axis->count || !axis->weights || !term) {
        free(term);
        return -1;
    }
    /* First with rows of the largest possible length, then moved together. */
    for (i = 0; i < outputs; i++) {
        int at = reversed ? outputs - 1 - i : i;
        int32_t *weights = &axis->weights[(size_t)at * most];
        double centre = begin + (i + 0.5) * scale;
        double sum = 0.0;
        int low = (int)(centre - stretch + 0.5);
        int high = (int)(centre + stretch + 0.5);
        int count;
        low = low < 0 ? 0 : low;
        high = high > size ? size : high;
        count = high - low;
        if (count < 1 || count > most) { /* never, for a box that lies within the picture */
            free(term);
            return 1;
        }
        for (t = 0; t < count; t++) {
            term[t] = triangle((t + low - centre + 0.5) * inverse);
            sum += term[t];
        }
        for (t = 0; t < count; t++) {
            double share = sum != 0.0 ? term[t] / sum : term[t];
            weights[t] = (int32_t)(0.5 + share * (1 << WEIGHT_BITS));
        }
        while (count > 1 && weights[count - 1] == 0) {
            count--;
        }
        while (count > 1 && weights[0] == 0) {
            memmove(weights, weights + 1, (count - 1) * sizeof(int32_t));
            weights[--count] = 0;
            low++;
        }
        axis->first[at] = low;
        axis->count[at] = count;
        taps = count > taps ? count : taps;
    }
    free(term);
    taps = (taps + GROUP - 1) / GROUP * GROUP;
    if (taps > most) { /* the last row moves up, into the room that was added for it */
        for (i = outputs - 1; i >= 0; i--) {
            memmove(&axis->weights[(size_t)i * taps], &axis->weights[(size_t)i * most], most * sizeof(int32_t));
            memset(&axis->weights[(size_t)i * taps + most], 0, (taps - most) * sizeof(int32_t));
        }
    } else {
        for (i = 1; i < outputs && taps < most; i++) {
            memmove(&axis->weights[(size_t)i * taps], &axis->weights[(size_t)i * most], taps * sizeof(int32_t));
        }
    }
    axis->taps = taps;
    /* No group of terms may end behind the last pixel, so a window near the end begins earlier. */
    for (i = 0; i < outputs && size >= taps; i++) {
        int32_t *weights = &axis->weights[(size_t)i * taps];
        int shift = axis->first[i] + taps - size;
        if (shift > 0) {
            memmove(weights + shift, weights, (taps - shift) * sizeof(int32_t));
            memset(weights, 0, shift * sizeof(int32_t));
            axis->first[i] -= shift;
            axis->count[i] += shift;
        }
    }
    return 0;
}

static int32_t
pair(int32_t first, int32_t second) {
    return (int32_t)((uint32_t)first | (uint32_t)second << 16);
}

static int
make_pairs(Axis *axis) {
    size_t at, total = (size_t)axis->outputs * axis->taps;
    axis->pairs = calloc(total + (size_t)OUTPUTS_AT_ONCE * axis->taps, sizeof(int32_t));
    if (!axis->pairs) {
        return -1;
    }
    for (at = 0; at < total; at += GROUP) {
        const int32_t *w = &axis->weights[at];
        int32_t *to = &axis->pairs[at];
        const int low = (1 << LOW_BITS) - 1;
        to[0] = pair(w[0] >> LOW_BITS, w[1] >> LOW_BITS);
        to[1] = pair(w[2] >> LOW_BITS, w[3] >> LOW_BITS);
        to[2] = pair(w[0] & low, w[1] & low);
        to[3] = pair(w[2] & low, w[3] & low);
    }
    return 0;
}

/* One row of a picture along its columns: RGBX (4 bytes a pixel) to RGB, or grey to grey. */
static void
shrink_row(const uint8_t *restrict row, uint8_t *restrict to, const Axis *axis, int channels) {
    int i, t;
    for (i = 0; i < axis->outputs; i++) {
        const int32_t *weights = &axis->weights[(size_t)i * axis->taps];
        const int count = axis->count[i];
        if (channels == 1) {
            const uint8_t *from = row + axis->first[i];
            int32_t grey = ROUND;
            for (t = 0; t < count; t++) {
                grey += weights[t] * from[t];
            }
            to[i] = (uint8_t)(grey >> WEIGHT_BITS);
        } else {
            const uint8_t *from = row + 4 * (size_t)axis->first[i];
            int32_t red = ROUND, green = ROUND, blue = ROUND;
            for (t = 0; t < count; t++) {
                red += weights[t] * from[4 * t];
                green += weights[t] * from[4 * t + 1];
                blue += weights[t] * from[4 * t + 2];
            }
            to[3 * i] = (uint8_t)(red >> WEIGHT_BITS);
            to[3 * i + 1] = (uint8_t)(green >> WEIGHT_BITS);
            to[3 * i + 2] = (uint8_t)(blue >> WEIGHT_BITS);
        }
    }
}

/* Some rows to one: to[i] = sum over t of weights[t] * rows[t][i]. `sums` has room for `length` numbers. */
static void
join_rows(const uint8_t **rows, const int32_t *weights, int count, uint8_t *to, int length, int32_t *restrict sums) {
    int i, t;
    for (i = 0; i < length; i++) {
        sums[i] = ROUND;
    }
    for (t = 0; t < count; t++) {
        const uint8_t *restrict row = rows[t];
        const int32_t weight = weights[t];
        for (i = 0; i < length; i++) {
            sums[i] += weight * row[i];
        }
    }
    for (i = 0; i < length; i++) {
        to[i] = (uint8_t)(sums[i] >> WEIGHT_BITS);
    }
}

#ifdef HAS_AVX2_CODE
#define AVX2 __attribute__((target("avx2")))

/* `shrink_row` of two rows of RGBX, one in each half of a register, and of OUTPUTS_AT_ONCE pixels at once. Of the last
 * ones 16 bytes are written, so what is written to needs padding. */
static inline __attribute__((always_inline)) AVX2 void
shrink_two_rows_of(
    const uint8_t *row0, const uint8_t *row1, uint8_t *to0, uint8_t *to1, const Axis *axis, const int groups
) {
    /* Of 4 pixels RGBX the first two and the last two: pairs of red, green, blue and X, as 16-bit numbers. */
    const __m256i first_two = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1)
    );
    const __m256i last_two = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1)
    );
    const __m256i without_x = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1)
    );
    const __m256i round = _mm256_set1_epi32(ROUND);
    const int32_t *pairs = axis->pairs;
    int i, output, group;
    for (i = 0; i < axis->outputs; i += OUTPUTS_AT_ONCE) {
        __m256i found[OUTPUTS_AT_ONCE], bytes;
        for (output = 0; output < OUTPUTS_AT_ONCE; output++) {
            size_t at = 4 * (size_t)axis->first[i + output];
            __m256i high = _mm256_setzero_si256(), low = round;
            for (group = 0; group < groups; group++, pairs += GROUP, at += 4 * GROUP) {
                const __m256i pixels = _mm256_inserti128_si256(
                    _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(row0 + at))),
                    _mm_loadu_si128((const __m128i *)(row1 + at)), 1
                );
                const __m256i a = _mm256_shuffle_epi8(pixels, first_two);
                const __m256i b = _mm256_shuffle_epi8(pixels, last_two);
                high = _mm256_add_epi32(high, _mm256_madd_epi16(a, _mm256_set1_epi32(pairs[0])));
                high = _mm256_add_epi32(high, _mm256_madd_epi16(b, _mm256_set1_epi32(pairs[1])));
                low = _mm256_add_epi32(low, _mm256_madd_epi16(a, _mm256_set1_epi32(pairs[2])));
                low = _mm256_add_epi32(low, _mm256_madd_epi16(b, _mm256_set1_epi32(pairs[3])));
            }
            found[output] = _mm256_srli_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low), WEIGHT_BITS);
        }
        bytes = _mm256_packus_epi16(
            _mm256_packus_epi32(found[0], found[1]), _mm256_packus_epi32(found[2], found[3])
        );
        bytes = _mm256_shuffle_epi8(bytes, without_x);
        _mm_storeu_si128((__m128i *)(to0 + 3 * i), _mm256_castsi256_si128(bytes));
        _mm_storeu_si128((__m128i *)(to1 + 3 * i), _mm256_extracti128_si256(bytes, 1));
    }
}

static AVX2 void
shrink_two_rows_avx2(const uint8_t *row0, const uint8_t *row1, uint8_t *to0, uint8_t *to1, const Axis *axis) {
    /* A constant number of groups makes the inner loop straight code. */
    switch (axis->taps / GROUP) {
        case 1:
            shrink_two_rows_of(row0, row1, to0, to1, axis, 1);
            break;
        case 2:
            shrink_two_rows_of(row0, row1, to0, to1, axis, 2);
            break;
        default:
            shrink_two_rows_of(row0, row1, to0, to1, axis, axis->taps / GROUP);
    }
}

static inline __attribute__((always_inline)) AVX2 __m128i
two_times_4_bytes(const uint8_t *first, const uint8_t *second) {
    int32_t bytes[2];
    memcpy(&bytes[0], first, 4);
    memcpy(&bytes[1], second, 4);
    return _mm_cvtepu8_epi16(_mm_insert_epi32(_mm_cvtsi32_si128(bytes[0]), bytes[1], 1));
}

/* `shrink_row` of a grey row, OUTPUTS_AT_ONCE pixels at once, of which 4 bytes are written. */
static AVX2 void
shrink_grey_row_avx2(const uint8_t *row, uint8_t *to, const Axis *axis) {
    const int taps = axis->taps;
    int i, t;
    for (i = 0; i < axis->outputs; i += OUTPUTS_AT_ONCE) {
        const int32_t *pairs = &axis->pairs[(size_t)i * taps];
        const int *first = &axis->first[i];
        __m128i high01 = _mm_setzero_si128(), high23 = high01, low01 = high01, low23 = high01, sums;
        int32_t bytes;
        for (t = 0; t < taps; t += GROUP) {
            const __m128i pixels01 = two_times_4_bytes(row + first[0] + t, row + first[1] + t);
            const __m128i pixels23 = two_times_4_bytes(row + first[2] + t, row + first[3] + t);
            const __m128i of_0 = _mm_loadu_si128((const __m128i *)(pairs + t));
            const __m128i of_1 = _mm_loadu_si128((const __m128i *)(pairs + t + taps));
            const __m128i of_2 = _mm_loadu_si128((const __m128i *)(pairs + t + 2 * taps));
            const __m128i of_3 = _mm_loadu_si128((const __m128i *)(pairs + t + 3 * taps));
            high01 = _mm_add_epi32(high01, _mm_madd_epi16(pixels01, _mm_unpacklo_epi64(of_0, of_1)));
            low01 = _mm_add_epi32(low01, _mm_madd_epi16(pixels01, _mm_unpackhi_epi64(of_0, of_1)));
            high23 = _mm_add_epi32(high23, _mm_madd_epi16(pixels23, _mm_unpacklo_epi64(of_2, of_3)));
            low23 = _mm_add_epi32(low23, _mm_madd_epi16(pixels23, _mm_unpackhi_epi64(of_2, of_3)));
        }
        high01 = _mm_add_epi32(_mm_slli_epi32(high01, LOW_BITS), low01);
        high23 = _mm_add_epi32(_mm_slli_epi32(high23, LOW_BITS), low23);
        sums = _mm_add_epi32(_mm_hadd_epi32(high01, high23), _mm_set1_epi32(ROUND));
        sums = _mm_packus_epi32(_mm_srli_epi32(sums, WEIGHT_BITS), sums);
        bytes = _mm_cvtsi128_si32(_mm_packus_epi16(sums, sums));
        memcpy(to + i, &bytes, 4);
    }
}

/* Grey to RGB: each byte three times. */
static AVX2 void
triple_avx2(const uint8_t *grey, uint8_t *to, int length) {
    const __m128i first = _mm_setr_epi8(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5);
    const __m128i second = _mm_setr_epi8(5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10);
    const __m128i third = _mm_setr_epi8(10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15);
    int i = 0;
    for (; i + 16 <= length; i += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(grey + i));
        _mm_storeu_si128((__m128i *)(to + 3 * i), _mm_shuffle_epi8(bytes, first));
        _mm_storeu_si128((__m128i *)(to + 3 * i + 16), _mm_shuffle_epi8(bytes, second));
        _mm_storeu_si128((__m128i *)(to + 3 * i + 32), _mm_shuffle_epi8(bytes, third));
    }
    for (; i < length; i++) {
        to[3 * i] = to[3 * i + 1] = to[3 * i + 2] = grey[i];
    }
}

/* 16 bytes of `join_rows`. */
static inline __attribute__((always_inline)) AVX2 __m128i
join_16_bytes(const uint8_t **rows, const int32_t *pairs, int count, int at) {
    __m256i high0 = _mm256_setzero_si256(), high1 = high0;
    __m256i low0 = _mm256_set1_epi32(ROUND), low1 = low0;
    int t;
    for (t = 0; t < count; t += 2) {
        const __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(rows[t] + at)));
        const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(rows[t + 1] + at)));
        const __m256i ab0 = _mm256_unpacklo_epi16(a, b), ab1 = _mm256_unpackhi_epi16(a, b);
        const int32_t *of_pair = &pairs[t / GROUP * GROUP + t % GROUP / 2];
        const __m256i high = _mm256_set1_epi32(of_pair[0]), low = _mm256_set1_epi32(of_pair[2]);
        high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(ab0, high));
        high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(ab1, high));
        low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(ab0, low));
        low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(ab1, low));
    }
    high0 = _mm256_srli_epi32(_mm256_add_epi32(_mm256_slli_epi32(high0, LOW_BITS), low0), WEIGHT_BITS);
    high1 = _mm256_srli_epi32(_mm256_add_epi32(_mm256_slli_epi32(high1, LOW_BITS), low1), WEIGHT_BITS);
    high0 = _mm256_packus_epi32(high0, high1); /* undoes the order of the unpacking */
    return _mm_packus_epi16(_mm256_castsi256_si128(high0), _mm256_extracti128_si256(high0, 1));
}

/* `join_rows`; `count` is even, and rows have ROW_PADDING. */
static AVX2 void
join_rows_avx2(const uint8_t **rows, const int32_t *pairs, int count, uint8_t *to, int length) {
    int at = 0;
    if (count == 2) {
        for (; at + 16 <= length; at += 16) {
            _mm_storeu_si128((__m128i *)(to + at), join_16_bytes(rows, pairs, 2, at));
        }
    } else if (count == 4) {
        for (; at + 16 <= length; at += 16) {
            _mm_storeu_si128((__m128i *)(to + at), join_16_bytes(rows, pairs, 4, at));
        }
    } else {
        for (; at + 16 <= length; at += 16) {
            _mm_storeu_si128((__m128i *)(to + at), join_16_bytes(rows, pairs, count, at));
        }
    }
    if (at < length) {
        uint8_t rest[16];
        _mm_storeu_si128((__m128i *)rest, join_16_bytes(rows, pairs, count, at));
        memcpy(to + at, rest, length - at);
    }
}
#endif

typedef struct {
    const uint8_t *pixels; /* rows from the top, without padding */
    int width, height;
    int channels; /* bytes a pixel: 1 is grey, 4 is RGBX */
    float box[4]; /* left, top, right, bottom of what is resized */
} Picture;

/* Returns 0, or -1 without memory, or 1 if this is left to Pillow. `to` is RGB of columns x rows pixels. */
static int
resize_picture(const Picture *picture, uint8_t *to, int columns, int rows, int mirrored, int flipped, int simd) {
    const int channels = picture->channels == 1 ? 1 : 3;
    const int length = columns * channels;
    const size_t row_bytes = (size_t)picture->width * picture->channels;
    const size_t stride = ((size_t)length + 2 * ROW_PADDING - 1) / ROW_PADDING * ROW_PADDING;
    Axis across, down;
    uint8_t *ring = NULL, *joined = NULL;
    int32_t *sums = NULL;
    const uint8_t **needed = NULL;
    int room, i, t, done, status;

    memset(&across, 0, sizeof(across));
    memset(&down, 0, sizeof(down));
    status = make_axis(&across, picture->width, picture->box[0], picture->box[2], columns, mirrored);
    if (status == 0) {
        status = make_axis(&down, picture->height, picture->box[1], picture->box[3], rows, 0);
    }
    if (status != 0) {
        goto end;
    }
    status = -1;
#ifdef HAS_AVX2_CODE
    simd = simd && __builtin_cpu_supports("avx2");
    if (simd && (make_pairs(&across) != 0 || make_pairs(&down) != 0)) {
        goto end;
    }
#else
    (void)simd;
#endif
    /* A row more than an output needs is computed, where two are computed at once. */
    room = down.taps + 2;
    ring = calloc(room + 1, stride);
    joined = malloc(stride);
    sums = malloc(length * sizeof(int32_t));
    needed = malloc((down.taps + 1) * sizeof(uint8_t *));
    if (!ring || !joined || !sums || !needed) {
        goto end;
    }
    done = 0;
    for (i = 0; i < rows; i++) {
        const int first = down.first[i];
        int count = down.count[i];
        uint8_t *target = to + (size_t)3 * columns * (flipped ? rows - 1 - i : i);
        uint8_t *result = channels == 3 ? target : joined;
        done = done < first ? first : done;
        while (done < first + count) {
            const uint8_t *row = picture->pixels + row_bytes * done;
            uint8_t *shrunk = ring + stride * (done % room);
#ifdef HAS_AVX2_CODE
            if (simd && channels == 1 && picture->width >= across.taps) {
                shrink_grey_row_avx2(row, shrunk, &across);
                done += 1;
                continue;
            }
            if (simd && picture->width >= across.taps) {
                const int more = done + 1 < picture->height;
                /* Below the last row, the same row is computed again, into a row that nobody reads. */
                shrink_two_rows_avx2(
                    row, more ? row + row_bytes : row, shrunk,
                    ring + stride * (more ? (done + 1) % room : room), &across
                );
                done += 2;
                continue;
            }
#endif
            shrink_row(row, shrunk, &across, channels);
            done += 1;
        }
        for (t = 0; t < count; t++) {
            needed[t] = ring + stride * ((first + t) % room);
        }
#ifdef HAS_AVX2_CODE
        if (simd) {
            needed[count] = needed[count - 1]; /* the weight of a row more is 0 */
            join_rows_avx2(needed, &down.pairs[(size_t)i * down.taps], (count + 1) / 2 * 2, result, length);
        } else
#endif
            join_rows(needed, &down.weights[(size_t)i * down.taps], count, result, length, sums);
        if (channels == 1) {
#ifdef HAS_AVX2_CODE
            if (simd) {
                triple_avx2(joined, target, columns);
                continue;
            }
#endif
            for (t = 0; t < columns; t++) {
                target[3 * t] = target[3 * t + 1] = target[3 * t + 2] = joined[t];
            }
        }
    }
    status = 0;
end:
    free_axis(&across);
    free_axis(&down);
    free(ring);
    free(joined);
    free(sums);
    free((void *)needed);
    return status;
}

/* The pixels that an Arrow array of Pillow holds; NULL with an exception if it holds others. */
static const uint8_t *
arrow_pixels(PyObject *capsule, int channels, int64_t pixels) {
    const struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array && channels == 4 && array->n_children == 1 && array->length == pixels && array->offset == 0) {
        array = array->children[0]; /* a list of 4 bytes for each pixel */
        pixels *= 4;
    } else if (array && channels != 1) {
        array = NULL;
    }
    if (!array || array->n_children || array->offset || array->n_buffers != 2 || array->length != pixels) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "not the Arrow array of an image of 8 bits in one block");
        }
        return NULL;
    }
    return array->buffers[1];
}

PyDoc_STRVAR(
    resize_doc,
    "resize(array, channels, size, box, to, to_size, mirrored, flipped, simd=True) -> bool\n\n"
    "Resizes an image by Pillow's bilinear filter.\n\n"
    "array is the capsule 'arrow_array' of an image of `size` (width, height), of 4 bytes a pixel (RGBX) or 1 (grey).\n"
    "box is what is resized: left, top, right, bottom. to is a writable buffer of uint8 [height, width, 3] for `to_size`\n"
    "(width, height). mirrored and flipped swap left and right, top and bottom of the result. Returns False, and writes\n"
    "nothing, if the reduction is so large that it is left to Pillow."
);

static PyObject *
resize(PyObject *module, PyObject *args) {
    Picture picture;
    PyObject *capsule, *target;
    Py_buffer to;
    int columns, rows, mirrored, flipped, simd = 1, status;
    (void)module;
    if (!PyArg_ParseTuple(
            args, "Oi(ii)(ffff)O(ii)pp|p:resize", &capsule, &picture.channels, &picture.width, &picture.height,
            &picture.box[0], &picture.box[1], &picture.box[2], &picture.box[3], &target, &columns, &rows, &mirrored,
            &flipped, &simd
        )) {
        return NULL;
    }
    if ((picture.channels != 1 && picture.channels != 4) || picture.width < 1 || picture.height < 1 || columns < 1 ||
        rows < 1 || columns > 1 << 16 || rows > 1 << 16 || !(picture.box[0] >= 0) || !(picture.box[1] >= 0) ||
        !(picture.box[2] > picture.box[0]) || !(picture.box[3] > picture.box[1]) ||
        !(picture.box[2] <= (float)picture.width) || !(picture.box[3] <= (float)picture.height)) {
        PyErr_SetString(PyExc_ValueError, "sizes, channels or the box are out of range");
        return NULL;
    }
    picture.pixels = arrow_pixels(capsule, picture.channels, (int64_t)picture.width * picture.height);
    if (!picture.pixels || PyObject_GetBuffer(target, &to, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0) {
        return NULL;
    }
    if (to.len != (Py_ssize_t)3 * columns * rows) {
        PyBuffer_Release(&to);
        PyErr_SetString(PyExc_ValueError, "the buffer has another size than the result");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    status = resize_picture(&picture, to.buf, columns, rows, mirrored, flipped, simd);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&to);
    if (status < 0) {
        return PyErr_NoMemory();
    }
    return PyBool_FromLong(status == 0);
}

PyDoc_STRVAR(
    cell_sums_doc,
    "cell_sums(pixels, size, rows, columns, weights, to)\n\n"
    "Sums the luminance of samples of cells. pixels is a buffer of uint8 [n, height, width, 3] for `size` (n, height,\n"
    "width); rows and columns are buffers of int32 [samples, cells], the rows and columns that are taken of each cell;\n"
    "weights are those of red, green and blue; to is a buffer of float64 [n, cells, cells]."
);

static PyObject *
cell_sums(PyObject *module, PyObject *args) {
    Py_buffer pixels, rows, columns, to;
    Py_ssize_t number, height, width, image, i;
    Py_ssize_t row_samples, column_samples;
    const int cells = 32;
    int red, green, blue, in_range = 1;
    uint16_t *sums = NULL;
    (void)module;
    if (!PyArg_ParseTuple(
            args, "y*(nnn)y*y*(iii)w*:cell_sums", &pixels, &number, &height, &width, &rows, &columns, &red, &green,
            &blue, &to
        )) {
        return NULL;
    }
    row_samples = rows.len / (cells * (Py_ssize_t)sizeof(int32_t));
    column_samples = columns.len / (cells * (Py_ssize_t)sizeof(int32_t));
    for (i = 0; i < row_samples * cells; i++) {
        in_range &= ((int32_t *)rows.buf)[i] >= 0 && ((int32_t *)rows.buf)[i] < height;
    }
    for (i = 0; i < column_samples * cells; i++) {
        in_range &= ((int32_t *)columns.buf)[i] >= 0 && ((int32_t *)columns.buf)[i] < width;
    }
    /* A sum of uint16 holds 257 samples of 255. */
    if (!in_range || number < 0 || height < 1 || width < 1 || pixels.len != number * height * width * 3 ||
        row_samples * column_samples > 257 || to.len != number * cells * cells * (Py_ssize_t)sizeof(double)) {
        PyErr_SetString(PyExc_ValueError, "buffers of other sizes, or samples beside the image");
    } else if (!(sums = malloc(width * 3 * sizeof(uint16_t)))) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS;
        for (image = 0; image < number; image++) {
            const uint8_t *of_image = (const uint8_t *)pixels.buf + image * height * width * 3;
            int row, column, sample;
            for (row = 0; row < cells; row++) {
                double *out = (double *)to.buf + (image * cells + row) * cells;
                memset(sums, 0, width * 3 * sizeof(uint16_t));
                for (sample = 0; sample < row_samples; sample++) {
                    const uint8_t *restrict from = of_image + ((int32_t *)rows.buf)[sample * cells + row] * width * 3;
                    for (i = 0; i < width * 3; i++) {
                        sums[i] += from[i];
                    }
                }
                for (column = 0; column < cells; column++) {
                    int32_t sum = 0;
                    for (sample = 0; sample < column_samples; sample++) {
                        const uint16_t *at = sums + 3 * ((int32_t *)columns.buf)[sample * cells + column];
                        sum += red * at[0] + green * at[1] + blue * at[2];
                    }
                    out[column] = sum;
                }
            }
        }
        Py_END_ALLOW_THREADS;
        free(sums);
    }
    PyBuffer_Release(&pixels);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&columns);
    PyBuffer_Release(&to);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"resize", resize, METH_VARARGS, resize_doc},
    {"cell_sums", cell_sums, METH_VARARGS, cell_sums_doc},
    {NULL, NULL, 0, NULL},
};

static int
add_constants(PyObject *module) {
    const char *kind = "C";
#ifdef HAS_AVX2_CODE
    kind = __builtin_cpu_supports("avx2") ? "AVX2" : kind;
#endif
    if (PyModule_AddStringConstant(module, "SOURCE_DIGEST", SOURCE_DIGEST) != 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "KIND", kind);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_constants}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_pixels", "The loops over pixels that a compiler makes fast.", 0, methods, slots,
    NULL,                  NULL,      NULL,
};

PyMODINIT_FUNC
PyInit__pixels(void) {
    return PyModuleDef_Init(&definition);
}
