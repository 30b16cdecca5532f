/* Read images from standard input, and write the logits of each, 32-bit integers, to standard output.
   IMAGE_BYTES and NUMBERS, the sizes of an image and of its logits, are given to the compiler. */
#include <stdio.h>

#include "network.h"

int main(void) {
    static uint8_t pixels[IMAGE_BYTES];
    static int32_t logits[NUMBERS];
    while (fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels) {
        classify(pixels, logits);
        fwrite(logits, 1, sizeof logits, stdout);
    }
    return 0;
}
