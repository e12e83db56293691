// IQ3_XXS: levels 4, 12 .. 52, 62, a scale for 32 weights. File: d f16; 64 indices; for each 32 weights four times 7 signs and, in
// the upper four bits, the scale. In memory 4.25 bits a weight, 3.06 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ3_XXS : CodebookFormat<IQ3_XXS, 18, 98, 32, 4, 6> {
    static constexpr int8_t kLevels[16] = {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62};
    static constexpr float kUnit = 0.25f;

    static void decode(const uint8_t* block, uint8_t* codes, uint8_t* n) {
        for (int j = 0; j < 8; j++) {
            const uint32_t word = read_u32(block + 66 + 4 * j);
            for (int i = 0; i < 8; i++) {
                const int signs = eighth_sign(word >> (i / 2 * 7)) >> (i % 2 * 4);
                entry_of_4(kIq3XxsGrid[block[2 + 8 * j + i]], signs, codes + 32 * j + 4 * i);
            }
            n[j] = static_cast<uint8_t>(word >> 28);
        }
    }
};

}  // namespace corral::CORRAL_ISA
