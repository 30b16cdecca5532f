/* Read images from standard input, and write the logits of each, 32-bit integers, to standard output.
   IMAGE_BYTES and NUMBERS, the sizes of an image and of its logits, are given to the compiler. */
#include "network.h"

/* Those of POSIX: of the C library, or of linux.S where there is none. */
long read(int file, void *bytes, unsigned long size);
long write(int file, const void *bytes, unsigned long size);

int main(void) {
    static uint8_t pixels[IMAGE_BYTES];
    static int32_t logits[NUMBERS];
    for (unsigned long filled = 0; ; filled %= sizeof pixels) {
        long count = read(0, pixels + filled, sizeof pixels - filled);
        if (count <= 0) return filled != 0;
        filled += count;
        if (filled < sizeof pixels) continue;
        classify(pixels, logits);
        if (write(1, logits, sizeof logits) != sizeof logits) return 1;
    }
}
