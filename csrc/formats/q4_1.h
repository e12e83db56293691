// Q4_1: 32 weights, w = d * q + m. File: d f16, m f16; 16 bytes, byte j holds columns j (low) and j + 16 (high).
// Packed chunk: nibbles, then d, then m of each sub-block.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct Q4_1 {
    static constexpr int kType = 3, kBlockWeights = 32, kBlockBytes = 20, kSub = 32, kOffsetLog2 = -1;
    static constexpr int kBits = 4;
    static constexpr bool kMinimum = true;

    static size_t chunk_bytes(int k) { return static_cast<size_t>(k) * 10; }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[32];
        nibble_halves(block + 4, q);
        float d = half_to_float(read_u16(block)), m = half_to_float(read_u16(block + 2));
        for (int j = 0; j < 32; j++) out[j] = d * static_cast<float>(q[j]) + m;
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t *scales = out + k * 8, *minima = scales + k;
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < k / 32 && rows[r]; j++) {
                const uint8_t* block = rows[r] + j * kBlockBytes;
                nibble_halves(block + 4, q[r] + 32 * j);
                memcpy(scales + 32 * j + 2 * r, block, 2);
                memcpy(minima + 32 * j + 2 * r, block + 2, 2);
            }
        interleave(q, k, quads);
        pack_nibbles(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles(p, k / 4, panel, r);
        unpack_halves(p + k * 8, k / 32, 1.0f, panel.s, r);
        unpack_halves(p + k * 9, k / 32, -1.0f, panel.m, r);
    }
};

}  // namespace corral::CORRAL_ISA
