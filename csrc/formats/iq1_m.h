// IQ1_M: 256 weights in 16 sub-blocks of 16, w = d * (1 + 2 scale) * (level +- 1/8), levels as IQ1_S and a sign of 1/8 for 8 weights.
// File: 32 low bytes of indices; nibbles of their upper 3 bits and a bit for minus 1/8; four words of four scales of 3 bits and 4 bits
// of d, lowest first.
//
// Packed chunk: level + 1 as pairs of bits; the signs of every second quad as bits; scales in nibbles; d.
// The panel has 8 level +- 1. In memory 2.88 bits a weight, 1.75 in the file.
#pragma once
#include "codebook.h"

namespace corral::CORRAL_ISA {

struct IQ1_M {
    static constexpr int kType = 29, kBlockWeights = 256, kBlockBytes = 56, kSub = 16, kOffsetLog2 = 4;
    static constexpr int kBits = 5;
    static constexpr bool kMinimum = false;
    static constexpr int8_t kLevels[16] = {-7, 1, 9, 0, -9, -1, 7, 0};  // and a code that no entry has
    static constexpr float kUnit = 0.125f;

    static size_t chunk_bytes(int) { return 1024 + 256 + round64(128 + 32); }

    static void decode(const uint8_t* block, uint8_t* codes, uint8_t* n) {
        for (int i = 0; i < 32; i++) {
            const int nibble = block[32 + i / 2] >> (i % 2 * 4) & 15;
            entry_of_8(kIq1SGrid[block[i] | (nibble & 7) << 8], nibble & 8 ? 0xff : 0, codes + 8 * i);
        }
        for (int j = 0; j < 16; j++) n[j] = read_u16(block + 48 + j / 4 * 2) >> (j % 4 * 3) & 7;
    }

    static uint16_t scale(const uint8_t* block) {
        int d = 0;
        for (int i = 0; i < 4; i++) d |= (block[49 + 2 * i] >> 4) << (4 * i);
        return static_cast<uint16_t>(d);
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t codes[256], n[16];
        decode(block, codes, n);
        const float d = half_to_float(scale(block)) * kUnit;
        for (int i = 0; i < 256; i++)
            out[i] = d * static_cast<float>(1 + 2 * n[i / 16]) * static_cast<float>(kLevels[codes[i]]);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t codes[16][kChunk] = {}, quads[kChunk / 4][64], n[16];
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            decode(rows[r], codes[r], n);
            pack_odd_scales<16>(n, scale(rows[r]), r, out + 1280);
        }
        interleave(codes, k, quads);
        pack_pairs<0>(quads, k / 4, out);
        uint8_t every_second[kChunk / 8][64];
        for (int i = 0; i < k / 8; i++) memcpy(every_second[i], quads[2 * i], 64);
        pack_bits<2>(every_second, k / 8, out + 1024);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        static constexpr Table table{kLevels, 1 << kOffsetLog2};
        const U64 values = utable(table.bytes), pair = uset(3), bit = uset(4);
        for (int y = 0; y < k / 64; y++) {
            const U64 minus = uload(p + 1024 + 64 * y);
            for (int z = 0; z < 4; z++) {
                const U64 four = uload(p + 256 * y + 64 * z);
                for (int i = 0; i < 4; i++) {
                    const int at = 2 * z + i / 2;
                    const U64 third = (at < 2 ? ushl(minus, 2 - at) : ushr(minus, at - 2)) & bit;
                    ustore(panel.q[16 * y + 4 * z + i][r], ulookup(values, (ushr(four, 2 * i) & pair) | third));
                }
            }
        }
        unpack_odd_scales<16>(p + 1280, kUnit, panel, r);
    }
};

}  // namespace corral::CORRAL_ISA
