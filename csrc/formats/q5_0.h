// Q5_0: 32 weights, w = d * (q - 16). File: d f16; 32 fifth bits; 16 bytes of nibbles as Q4_0.
// Packed chunk: nibbles, fifth bits, then d of each sub-block.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct Q5_0 {
    static constexpr int kType = 6, kBlockWeights = 32, kBlockBytes = 22, kSub = 32, kOffsetLog2 = 4;
    static constexpr int kBits = 5;
    static constexpr bool kMinimum = false;

    static size_t chunk_bytes(int k) { return round64(static_cast<size_t>(k) * 11); }

    // `high` points at the fifth bits, followed by the nibbles
    static void bytes(const uint8_t* high, uint8_t* q) {
        uint32_t bits;
        memcpy(&bits, high, 4);
        for (int j = 0; j < 16; j++) {
            q[j] = static_cast<uint8_t>((high[4 + j] & 15) | (bits >> j & 1) << 4);
            q[j + 16] = static_cast<uint8_t>((high[4 + j] >> 4) | (bits >> (j + 16) & 1) << 4);
        }
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[32];
        bytes(block + 2, q);
        float d = half_to_float(read_u16(block));
        for (int j = 0; j < 32; j++) out[j] = d * static_cast<float>(q[j] - 16);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t* scales = out + k * 10;
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < k / 32 && rows[r]; j++) {
                const uint8_t* block = rows[r] + j * kBlockBytes;
                bytes(block + 2, q[r] + 32 * j);
                memcpy(scales + 32 * j + 2 * r, block, 2);
            }
        interleave(q, k, quads);
        pack_nibbles(quads, k / 4, out);
        pack_bits<4>(quads, k / 4, out + k * 8);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles_fifth(p, p + k * 8, k / 4, panel, r);
        unpack_halves(p + k * 10, k / 32, 1.0f, panel.s, r);
    }
};

}  // namespace corral::CORRAL_ISA
