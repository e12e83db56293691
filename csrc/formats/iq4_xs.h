// IQ4_XS: 256 weights in 8 sub-blocks of 32, w = d * (scale - 32) * value[c], the values of IQ4_NL.
// File: d f16; a pair of bits of each scale, then a nibble of each; of each sub-block 16 bytes as IQ4_NL.
// Packed chunk: nibbles; scales as signed bytes; d.
#pragma once
#include "iq4_nl.h"

namespace corral::CORRAL_ISA {

struct IQ4_XS {
    static constexpr int kType = 23, kBlockWeights = 256, kBlockBytes = 136, kSub = 32, kOffsetLog2 = 7;
    static constexpr int kBits = 8;
    static constexpr bool kMinimum = false;

    static size_t chunk_bytes(int) { return 2048 + round64(128 + 32); }

    static void bytes(const uint8_t* block, uint8_t* codes) {
        for (int j = 0; j < 8; j++) nibble_halves(block + 8 + 16 * j, codes + 32 * j);
    }

    static int8_t scale(const uint8_t* block, int j) {
        const int low = block[4 + j / 2] >> (j % 2 * 4) & 15, high = read_u16(block + 2) >> (2 * j) & 3;
        return static_cast<int8_t>((low | high << 4) - 32);
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t codes[256];
        bytes(block, codes);
        const float d = half_to_float(read_u16(block));
        for (int j = 0; j < 8; j++) {
            const float s = d * static_cast<float>(scale(block, j));
            for (int i = 32 * j; i < 32 * j + 32; i++) out[i] = s * static_cast<float>(kIq4Values[codes[i]]);
        }
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t codes[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t *scales = out + 2048, *halves = scales + 128;
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            bytes(rows[r], codes[r]);
            for (int j = 0; j < 8; j++) scales[16 * j + r] = static_cast<uint8_t>(scale(rows[r], j));
            memcpy(halves + 2 * r, rows[r], 2);
        }
        interleave(codes, k, quads);
        pack_nibbles(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles(p, k / 4, panel, r, Lookup{utable(IQ4_NL::kTable.bytes)});
        unpack_signed_scales<8>(p + 2048, panel, r);
    }

    template <int R>
    CORRAL_INLINE void unpack_whole(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_nibbles(p, kChunk / 4, panel, r, Lookup{utable(IQ4_NL::kTable.bytes)});
        whole_signed_scales<8>(p + 2048, scales, r);
    }
};

}  // namespace corral::CORRAL_ISA
