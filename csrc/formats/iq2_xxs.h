// IQ2_XXS: levels 8, 25, 43, a scale for 32 weights. File: d f16; for each 32 weights four indices, then four times 7 signs and, in
// the upper four bits, the scale. In memory 3.25 bits a weight, 2.06 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ2_XXS : CodebookFormat<IQ2_XXS, 16, 66, 32, 3, 6>, Iq2Levels {
    static void decode(const uint8_t* block, uint8_t* codes, uint8_t* n) {
        for (int j = 0; j < 8; j++) {
            const uint8_t* run = block + 2 + 8 * j;
            const uint32_t word = read_u32(run + 4);
            for (int i = 0; i < 4; i++)
                entry_of_8(kIq2XxsGrid[run[i]], eighth_sign(word >> (7 * i)), codes + 32 * j + 8 * i);
            n[j] = static_cast<uint8_t>(word >> 28);
        }
    }
};

}  // namespace corral::CORRAL_ISA
