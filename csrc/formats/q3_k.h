// Q3_K: 256 weights in 16 sub-blocks of 16, w = d * (scale - 32) * (q - 4).
// File: 32 bytes, bit j of byte i the third bit of column 32 j + i; 64 bytes of low bit pairs as Q2_K; 12 bytes of 6-bit scales; d f16.
// Packed chunk: pairs; third bits; scales as signed bytes; d.
#pragma once
#include "q2_k.h"

namespace corral::CORRAL_ISA {

struct Q3_K {
    static constexpr int kType = 11, kBlockWeights = 256, kBlockBytes = 110, kSub = 16, kOffsetLog2 = 2;
    static constexpr int kBits = 3;
    static constexpr bool kMinimum = false;
    static constexpr int kScaledOffset = 127;

    static size_t chunk_bytes(int) { return 1024 + 512 + 256 + 64; }

    static void bytes(const uint8_t* block, uint8_t* q) {
        Q2_K::bytes(block + 32, q);
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 32; j++) q[32 * i + j] |= static_cast<uint8_t>((block[j] >> i & 1) << 2);
    }

    // Low four bits in the nibbles of the first eight bytes, the other two in the pairs of the last four.
    static int8_t scale(const uint8_t* scales, int j) {
        const int low = scales[j % 8] >> (j / 8 * 4) & 15, high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
        return static_cast<int8_t>((low | high << 4) - 32);
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256];
        bytes(block, q);
        const float d = half_to_float(read_u16(block + 108));
        for (int j = 0; j < 16; j++) {
            const float s = d * static_cast<float>(scale(block + 96, j));
            for (int i = 16 * j; i < 16 * j + 16; i++) out[i] = s * static_cast<float>(q[i] - 4);
        }
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t *scales = out + 1536, *halves = scales + 256;
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            bytes(rows[r], q[r]);
            for (int j = 0; j < 16; j++) scales[16 * j + r] = static_cast<uint8_t>(scale(rows[r] + 96, j));
            memcpy(halves + 2 * r, rows[r] + 108, 2);
        }
        interleave(q, k, quads);
        pack_pairs<0>(quads, k / 4, out);
        pack_bits<2>(quads, k / 4, out + 1024);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_pairs_bit(p, p + 1024, k / 4, panel, r);
        unpack_signed_scales<16>(p + 1536, panel, r);
    }

#if defined(CORRAL_WHOLE_CHUNKS)
    template <int R>
    CORRAL_INLINE void unpack_whole(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_pairs_bit(p, p + 1024, kChunk / 4, panel, r);
        whole_signed_scales<16>(p + 1536, scales, r);
    }

    template <int R>
    CORRAL_INLINE void unpack_scaled(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_pairs_bit(p, p + 1024, kChunk / 4, panel, r);
        for (int j = 0; j < 16; j++) {
            const SignedRowScales<1 << kOffsetLog2, kScaledOffset> factors(p + 1536 + 16 * j);
            for (int quad = 4 * j; quad < 4 * j + 4; quad++)
                ustore(panel.q[quad][r], factors.times(uload(panel.q[quad][r])));
        }
        fstore(scales.d[r], fload_half(reinterpret_cast<const uint16_t*>(p + 1536 + 256)));
    }
#endif
};

}  // namespace corral::CORRAL_ISA
