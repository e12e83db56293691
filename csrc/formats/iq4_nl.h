// IQ4_NL: 32 weights, w = d * value[c]: the 4-bit code names one of 16 uneven values. File and packed chunk as Q4_0.
#pragma once
#include "q4_0.h"

namespace corral::CORRAL_ISA {

constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL {
    static constexpr int kType = 20, kBlockWeights = 32, kBlockBytes = 18, kSub = 32, kOffsetLog2 = 7;
    static constexpr int kBits = 8;
    static constexpr bool kMinimum = false;
    static constexpr Table kTable{kIq4Values, kSignedWide ? 0 : 128};

    static size_t chunk_bytes(int k) { return Q4_0::chunk_bytes(k); }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t codes[32];
        nibble_halves(block + 2, codes);
        const float d = half_to_float(read_u16(block));
        for (int j = 0; j < 32; j++) out[j] = d * static_cast<float>(kIq4Values[codes[j]]);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) { Q4_0::pack(rows, k, out); }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles(p, k / 4, panel, r, Lookup{utable(kTable.bytes)});
        unpack_halves(p + k * 8, k / 32, 1.0f, panel.s, r);
    }
};

}  // namespace corral::CORRAL_ISA
