// TQ2_0: ternary. File: 64 bytes of bit pairs as Q2_K; d f16.
#pragma once
#include "q2_k.h"
#include "ternary.h"

namespace corral::CORRAL_ISA {

struct TQ2_0 : TernaryFormat<TQ2_0, 35, 66> {
    static void bytes(const uint8_t* block, uint8_t* q) { Q2_K::bytes(block, q); }
};

}  // namespace corral::CORRAL_ISA
