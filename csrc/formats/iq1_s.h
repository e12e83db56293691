// IQ1_S: 256 weights in 8 sub-blocks of 32, w = d * (1 + 2 scale) * (level +- 1/8), levels -1, 0, 1 in groups of 8 from a codebook.
// File: d f16; 32 low bytes of indices; of each sub-block four times their upper 3 bits, a scale of 3 bits, a bit for minus 1/8.
//
// Packed chunk: level + 1 as pairs of bits; 1 + 2 scale and 8 - 8 delta (9 or 7) in nibbles; d. In memory 2.38 bits a weight,
// 1.56 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ1_S {
    static constexpr int kType = 19, kBlockWeights = 256, kBlockBytes = 50, kSub = 32, kOffsetLog2 = -1;
    static constexpr int kBits = 2;
    static constexpr bool kMinimum = true;

    static size_t chunk_bytes(int) { return 1024 + round64(128 + 32); }

    // nibbles: of each sub-block the multiples of d and of scale / 8, as packed
    static void decode(const uint8_t* block, uint8_t* q, uint8_t* nibbles) {
        for (int j = 0; j < 8; j++) {
            const int high = read_u16(block + 34 + 2 * j);
            for (int i = 0; i < 4; i++) {
                const int index = block[2 + 4 * j + i] | (high >> (3 * i) & 7) << 8;
                entry_of_8(kIq1SGrid[index], 0, q + 32 * j + 8 * i);
            }
            nibbles[j] = static_cast<uint8_t>((1 + 2 * (high >> 12 & 7)) | (high >> 15 ? 9 : 7) << 4);
        }
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256], nibbles[8];
        decode(block, q, nibbles);
        const float d = half_to_float(read_u16(block));
        for (int i = 0; i < 256; i++) {
            const float s = d * static_cast<float>(nibbles[i / 32] & 15);
            out[i] = s * (static_cast<float>(q[i]) - 0.125f * static_cast<float>(nibbles[i / 32] >> 4));
        }
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64], nibbles[8];
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            decode(rows[r], q[r], nibbles);
            for (int j = 0; j < 8; j++) out[1024 + 16 * j + r] = nibbles[j];
            memcpy(out + 1024 + 128 + 2 * r, rows[r], 2);
        }
        interleave(q, k, quads);
        pack_pairs<0>(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_pairs(p, k / 4, panel, r);
        alignas(64) uint8_t low[128], high[128];
        unpack_nibbles_apart(p + 1024, 2, low, high);
        const F16 d = fload_half(reinterpret_cast<const uint16_t*>(p + 1024 + 128));
        for (int j = 0; j < 8; j++) {
            const F16 s = d * fload_u8(low + 16 * j);
            fstore(panel.s[j][r], s);
            fstore(panel.m[j][r], s * fset(0.125f) * fload_u8(high + 16 * j));
        }
    }
};

}  // namespace corral::CORRAL_ISA
