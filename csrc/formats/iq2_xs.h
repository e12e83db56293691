// IQ2_XS: levels 8, 25, 43, a scale for 16 weights. File: d f16; 32 times an index of 9 bits and 7 signs; scales in nibbles.
// In memory 3.38 bits a weight, 2.31 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ2_XS : CodebookFormat<IQ2_XS, 17, 74, 16, 3, 6>, Iq2Levels {
    static void decode(const uint8_t* block, uint8_t* codes, uint8_t* n) {
        for (int i = 0; i < 32; i++) {
            const uint16_t word = read_u16(block + 2 + 2 * i);
            entry_of_8(kIq2XsGrid[word & 511], eighth_sign(word >> 9), codes + 8 * i);
        }
        for (int j = 0; j < 16; j++) n[j] = block[66 + j / 2] >> (j % 2 * 4) & 15;
    }
};

}  // namespace corral::CORRAL_ISA
