// IQ2_S: levels 8, 25, 43, a scale for 16 weights. File: d f16; 32 low bytes of indices; 32 bytes of signs; 8 bytes of the indices'
// upper two bits; scales in nibbles. In memory 3.38 bits a weight, 2.56 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ2_S : CodebookFormat<IQ2_S, 22, 82, 16, 3, 6>, Iq2Levels {
    static void decode(const uint8_t* block, uint8_t* codes, uint8_t* n) {
        const uint8_t *low = block + 2, *signs = low + 32, *high = signs + 32, *scales = high + 8;
        for (int i = 0; i < 32; i++) {
            const int index = low[i] | (high[i / 4] >> (i % 4 * 2) & 3) << 8;
            entry_of_8(kIq2SGrid[index], signs[i], codes + 8 * i);
        }
        for (int j = 0; j < 16; j++) n[j] = scales[j / 2] >> (j % 2 * 4) & 15;
    }
};

}  // namespace corral::CORRAL_ISA
