// TQ1_0: ternary. File: 32 bytes of five digits, 16 of five, 4 of four; d f16. In each run of n bytes the first digits are n columns,
// the second digits the next n, and so on; a byte is a fraction of 256 and its digits those after the point in base 3.
#pragma once
#include "ternary.h"

namespace corral::CORRAL_ISA {

struct TQ1_0 : TernaryFormat<TQ1_0, 34, 54> {
    static uint8_t* digits(const uint8_t* p, int n, int count, uint8_t* q) {
        for (int digit = 0, power = 1; digit < count; digit++, power *= 3)
            for (int i = 0; i < n; i++) *q++ = static_cast<uint8_t>((p[i] * power & 255) * 3 >> 8);
        return q;
    }

    static void bytes(const uint8_t* block, uint8_t* q) {
        q = digits(block, 32, 5, q);
        q = digits(block + 32, 16, 5, q);
        digits(block + 48, 4, 4, q);
    }
};

}  // namespace corral::CORRAL_ISA
