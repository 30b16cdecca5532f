/* Classify an image by integers only: no floating point, no division, no allocation, nothing beyond 32 bits. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

/* Classify an image of bytes, 0 to 255, one colour after the other, row by row. Returns the number of the class;
   `logits` receives one number for each class. It is not reentrant: its memory is static. */
int classify(const uint8_t *pixels, int32_t *logits);

#endif
