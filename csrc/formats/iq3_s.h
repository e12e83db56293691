// IQ3_S: levels 1, 3 .. 15, a scale for 32 weights. File: d f16; 64 low bytes of indices; 8 bytes of their ninth bits; 32 bytes of
// signs; scales in nibbles. In memory 4.25 bits a weight, 3.44 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ3_S : CodebookFormat<IQ3_S, 21, 110, 32, 4, 4> {
    static constexpr int8_t kLevels[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
    static constexpr float kUnit = 1.0f;

    static void decode(const uint8_t* block, uint8_t* codes, uint8_t* n) {
        const uint8_t *low = block + 2, *high = low + 64, *signs = high + 8, *scales = signs + 32;
        for (int i = 0; i < 64; i++) {
            const int index = low[i] | (high[i / 8] >> (i % 8) & 1) << 8;
            entry_of_4(kIq3SGrid[index], signs[i / 2] >> (i % 2 * 4), codes + 4 * i);
        }
        for (int j = 0; j < 8; j++) n[j] = scales[j / 2] >> (j % 2 * 4) & 15;
    }
};

}  // namespace corral::CORRAL_ISA
