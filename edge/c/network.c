/* The arithmetic is that of edge/integer_network.py, the decoder that of edge/weight_coder.py. */
#include "network.h"

enum { NO_POOL, MAX_POOL, MEAN_POOL };

typedef struct {
    uint16_t channels, height, width;                        /* of the input */
    uint16_t outputs, output_height, output_width;           /* after pooling */
    uint8_t kernel_height, kernel_width, stride, pad, zero;  /* zero: the byte of the input that stands for 0 */
    uint8_t relu, pool, window_height, window_width, window_stride;
    uint8_t bias_shift, shift_before, mean_shift_before;
    int16_t mean_code;
} layer_t;

#include "network_data.h"

/* The decoder of weights */

enum { NEAR = 3, SIGN = 4 * NEAR, SIZE = SIGN + 3, LONGEST = 14, CONTEXTS = SIZE + LONGEST };

static uint16_t fast[CONTEXTS], slow[CONTEXTS]; /* probabilities of a 0, of 32,768 */
static uint32_t range, code, level;
static const uint8_t *next;

static void start_decoding(void) {
    for (int i = 0; i < CONTEXTS; i++) fast[i] = slow[i] = 1 << 14;
    level = 128;
    range = 0xFFFFFFFFu;
    next = WEIGHTS;
    for (int i = 0; i < 4; i++) code = code << 8 | *next++;
}

static int decode_bit(int context) {
    uint32_t f = fast[context], s = slow[context], bound = (range >> 16) * (f + s);
    int bit = code >= bound;
    if (bit) {
        code -= bound;
        range -= bound;
        f -= f >> 4;
        s -= s >> 7;
    } else {
        range = bound;
        f += (32768 - f) >> 4;
        s += (32768 - s) >> 7;
    }
    fast[context] = (uint16_t)f;
    slow[context] = (uint16_t)s;
    while (range < 1u << 24) {
        code = code << 8 | *next++;
        range <<= 8;
    }
    return bit;
}

static int decode_weight(int left, int above) {
    int near = (left < 0 ? -left : left) + (above < 0 ? -above : above), size = 0, sign = 0;
    int large = (level > 64) + (level > 150) + (level > 300);
    if (decode_bit(large * NEAR + (near < NEAR ? near : NEAR - 1))) {
        sign = decode_bit(SIGN + (left > 0 ? 1 : left < 0 ? 2 : 0));
        do size++;
        while (decode_bit(SIZE + (size < LONGEST ? size : LONGEST) - 1));
    }
    level += ((uint32_t)(size < 8 ? size : 8) << 4) - (level >> 4);
    return sign ? -size : size;
}

/* Decode the weights of one channel of outputs. */
static void decode_row(const layer_t *layer, weight_t *row) {
    int width = layer->kernel_width;
    for (int c = 0; c < layer->channels; c++)
        for (int y = 0; y < layer->kernel_height; y++)
            for (int x = 0; x < width; x++, row++)
                *row = (weight_t)decode_weight(x ? row[-1] : 0, y ? row[-width] : 0);
}

/* The arithmetic */

/* Multiply by 2^(scale_code / 32), rounded half up. */
static int32_t rescale(int32_t value, int scale_code, int before) {
    int shift = 14 - (scale_code >> 5) - before;
    return ((value >> before) * MULTIPLIERS[scale_code & 31] + (int32_t)(1u << (shift - 1))) >> shift;
}

static int32_t clamp(int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

/* Compute one sum of a convolution: weights times the bytes around a place, but for those beyond the edge. */
static int32_t convolve(const layer_t *layer, const uint8_t *input, const weight_t *row, int y, int x) {
    int32_t sum = 0;
    y = y * layer->stride - layer->pad;
    x = x * layer->stride - layer->pad;
    for (int c = 0; c < layer->channels; c++, input += layer->height * layer->width)
        for (int dy = 0; dy < layer->kernel_height; dy++)
            for (int dx = 0; dx < layer->kernel_width; dx++, row++)
                if (*row && (unsigned)(y + dy) < layer->height && (unsigned)(x + dx) < layer->width)
                    sum += *row * (input[(y + dy) * layer->width + x + dx] - layer->zero);
    return sum;
}

/* Compute one output: of the largest sum of a window, or the mean of all bytes. */
static int32_t compute(const layer_t *layer, const uint8_t *input, const weight_t *row, int32_t bias, int scale_code,
                       int y, int x) {
    int32_t largest = INT32_MIN, total = 0;
    for (int dy = 0; dy < layer->window_height; dy++)
        for (int dx = 0; dx < layer->window_width; dx++) {
            int32_t sum = convolve(layer, input, row, y * layer->window_stride + dy, x * layer->window_stride + dx);
            if (sum > largest) largest = sum;
            if (layer->pool == MEAN_POOL) total += clamp(rescale(sum + bias, scale_code, layer->shift_before));
        }
    if (layer->pool == MEAN_POOL) return clamp(rescale(total, layer->mean_code, layer->mean_shift_before));
    largest = rescale(largest + bias, scale_code, layer->shift_before);
    return layer->relu ? clamp(largest) : largest;
}

int classify(const uint8_t *pixels, int32_t *logits) {
    static uint8_t even[EVEN_BYTES], odd[ODD_BYTES]; /* inputs of the layers 0, 2, ... and 1, 3, ... */
    static weight_t row[MOST_WEIGHTS];
    const int16_t *biases = BIASES, *scale_codes = SCALE_CODES;
    uint8_t *input = even, *output = odd;
    int best = 0;

    for (int c = 0, i = 0; c < LAYER[0].channels; c++)
        for (int end = i + LAYER[0].height * LAYER[0].width; i < end; i++)
            input[i] = (uint8_t)clamp((pixels[i] * COLOURS[c][0] + COLOURS[c][1]) >> 16);
    start_decoding();
    for (const layer_t *layer = LAYER; layer < LAYER + LAYERS; layer++) {
        uint8_t *place = output;
        for (int m = 0; m < layer->outputs; m++, biases++, scale_codes++) {
            decode_row(layer, row);
            for (int y = 0; y < layer->output_height; y++)
                for (int x = 0; x < layer->output_width; x++) {
                    int32_t bias = *biases * (1 << layer->bias_shift);
                    int32_t value = compute(layer, input, row, bias, *scale_codes, y, x);
                    if (layer == LAYER + LAYERS - 1) logits[m] = value;
                    else *place++ = (uint8_t)value;
                }
        }
        output = input;
        input = input == even ? odd : even;
    }
    for (int m = 1; m < CLASSES; m++)
        if (logits[m] > logits[best]) best = m;
    return best;
}
