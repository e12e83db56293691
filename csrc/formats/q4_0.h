// Q4_0: 32 weights, w = d * (q - 8). File: d f16; 16 bytes, byte j holds columns j (low) and j + 16 (high).
// Packed chunk: nibbles, then d of each sub-block.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct Q4_0 {
    static constexpr int kType = 2, kBlockWeights = 32, kBlockBytes = 18, kSub = 32, kOffsetLog2 = 3;
    static constexpr int kBits = 4;
    static constexpr bool kMinimum = false;

    static size_t chunk_bytes(int k) { return round64(static_cast<size_t>(k) * 8 + static_cast<size_t>(k)); }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[32];
        nibble_halves(block + 2, q);
        float d = half_to_float(read_u16(block));
        for (int j = 0; j < 32; j++) out[j] = d * static_cast<float>(q[j] - 8);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t* scales = out + k * 8;
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < k / 32; j++) {
                if (rows[r]) nibble_halves(rows[r] + j * kBlockBytes + 2, q[r] + 32 * j);
                if (rows[r]) memcpy(scales + 32 * j + 2 * r, rows[r] + j * kBlockBytes, 2);
            }
        interleave(q, k, quads);
        pack_nibbles(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles(p, k / 4, panel, r);
        unpack_halves(p + k * 8, k / 32, 1.0f, panel.s, r);
    }
};

}  // namespace corral::CORRAL_ISA
