// Q5_K: 256 weights in 8 sub-blocks of 32, w = d * scale * q - dmin * minimum.
// File: d f16, dmin f16; 12 bytes of scales and minima as Q4_K; 32 bytes, bit j of byte i the fifth bit of column 32 j + i; 128
// bytes of nibbles as Q4_K. Packed chunk: nibbles; fifth bits; scales and minima.
#pragma once
#include "q4_k.h"

namespace corral::CORRAL_ISA {

struct Q5_K {
    static constexpr int kType = 13, kBlockWeights = 256, kBlockBytes = 176, kSub = 32, kOffsetLog2 = -1;
    static constexpr int kBits = 5;
    static constexpr bool kMinimum = true;

    static size_t chunk_bytes(int) { return 2048 + 512 + 256 + 64; }

    static void bytes(const uint8_t* block, uint8_t* q) {
        Q4_K::bytes(block + 48, q);
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 32; j++) q[32 * i + j] |= static_cast<uint8_t>((block[16 + j] >> i & 1) << 4);
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256];
        bytes(block, q);
        dequantize_affine(block, q, out);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            bytes(rows[r], q[r]);
            pack_scales_and_minima(rows[r], r, out + 2560);
        }
        interleave(q, k, quads);
        pack_nibbles(quads, k / 4, out);
        pack_bits<4>(quads, k / 4, out + 2048);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles_fifth(p, p + 2048, k / 4, panel, r);
        unpack_scales_and_minima(p + 2560, panel, r);
    }

    template <int R>
    CORRAL_INLINE void unpack_whole(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_nibbles_fifth(p, p + 2048, kChunk / 4, panel, r);
        whole_scales_and_minima(p + 2560, scales, r);
    }
};

}  // namespace corral::CORRAL_ISA
