// What the IQ3 and IQ2 formats share: 256 weights, w = +-(d * unit * (1 + 2 scale)) * level, d a float16 at the start of the
// block, levels from a codebook that an index names a group of 4 or 8 of, signs beside it.
//
// Packed chunk: codes of 3 or 4 bits, each a level and its sign; scales in nibbles; d. This is wider than the file (see the
// formats), because reading a code is a shuffle for 64 weights, and the codebook would be a gather for each group.
#pragma once
#include "grids.h"
#include "layout.h"

namespace corral::CORRAL_ISA {

// 8 bits of signs from 7: the number of minus signs is even.
CORRAL_INLINE uint8_t eighth_sign(uint32_t seven) {
    seven &= 127;
    return static_cast<uint8_t>(seven | static_cast<uint32_t>(__builtin_popcount(seven) & 1) << 7);
}

// The codes of an entry's weights: the level and, above it, a bit for minus.
CORRAL_INLINE void entry_of_8(uint16_t entry, uint8_t signs, uint8_t* codes) {
    for (int i = 0; i < 8; i++) codes[i] = static_cast<uint8_t>((entry >> (2 * i) & 3) | (signs >> i & 1) << 2);
}
CORRAL_INLINE void entry_of_4(uint16_t entry, int signs, uint8_t* codes) {
    for (int i = 0; i < 4; i++) codes[i] = static_cast<uint8_t>((entry >> (3 * i) & 7) | (signs >> i & 1) << 3);
}

// Scales of `Subs` sub-blocks, 1 + 2 n for n of four bits, times d. Packed: line i has those of sub-blocks 8 i + 0..3 in its low
// nibbles and 8 i + 4..7 in the high ones; then d of 16 rows.
template <int Subs>
CORRAL_INLINE void pack_odd_scales(const uint8_t* n, uint16_t d, int r, uint8_t* out) {
    for (int j = 0; j < Subs; j++) {
        uint8_t& both = out[j / 8 * 64 + j % 4 * 16 + r];
        both = static_cast<uint8_t>(j % 8 < 4 ? (both & 0xf0) | n[j] : (both & 15) | n[j] << 4);
    }
    memcpy(out + Subs * 8 + 2 * r, &d, 2);
}
template <int Subs, int R>
CORRAL_INLINE void unpack_odd_scales(const uint8_t* p, float unit, Panel<R>& panel, int r) {
    alignas(64) uint8_t low[8 * Subs], high[8 * Subs];
    unpack_nibbles_apart(p, Subs / 8, low, high);
    const F16 d = fload_half(reinterpret_cast<const uint16_t*>(p + 8 * Subs)) * fset(unit), twice = d + d;
    for (int j = 0; j < Subs; j++) {
        const uint8_t* n = (j % 8 < 4 ? low : high) + j / 8 * 64 + j % 4 * 16;
        fstore(panel.s[j][r], fma(fload_u8(n), twice, d));
    }
}

// Format::decode(block, codes, n) gives the codes of a block and the numbers of its scales, Format::kLevels the values of codes.
template <class Format, int Type, int Bytes, int Sub, int CodeBits, int OffsetLog2>
struct CodebookFormat {
    static constexpr int kType = Type, kBlockWeights = 256, kBlockBytes = Bytes, kSub = Sub, kOffsetLog2 = OffsetLog2;
    static constexpr int kBits = OffsetLog2 + 1;
    static constexpr bool kMinimum = false;
    static constexpr int kSubs = 256 / Sub, kCodeBytes = 512 * CodeBits;

    static size_t chunk_bytes(int) { return kCodeBytes + round64(kSubs * 8 + 32); }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t codes[256], n[kSubs];
        Format::decode(block, codes, n);
        const float d = half_to_float(read_u16(block)) * Format::kUnit;
        for (int i = 0; i < 256; i++)
            out[i] = d * static_cast<float>(1 + 2 * n[i / Sub]) * static_cast<float>(Format::kLevels[codes[i]]);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t codes[16][kChunk] = {}, quads[kChunk / 4][64], n[kSubs];
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            Format::decode(rows[r], codes[r], n);
            pack_odd_scales<kSubs>(n, read_u16(rows[r]), r, out + kCodeBytes);
        }
        interleave(codes, k, quads);
        if constexpr (CodeBits == 4) {
            pack_nibbles(quads, k / 4, out);
        } else {
            pack_pairs<0>(quads, k / 4, out);
            pack_bits<2>(quads, k / 4, out + 1024);
        }
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        static constexpr Table table{Format::kLevels, 1 << OffsetLog2};
        if constexpr (CodeBits == 4)
            unpack_nibbles(p, k / 4, panel, r, Lookup{utable(table.bytes)});
        else
            unpack_pairs_bit(p, p + 1024, k / 4, panel, r, Lookup{utable(table.bytes)});
        unpack_odd_scales<kSubs>(p + kCodeBytes, Format::kUnit, panel, r);
    }
};

// Of the IQ2 formats: three levels, and a code that no entry has
struct Iq2Levels {
    static constexpr int8_t kLevels[16] = {8, 25, 43, 0, -8, -25, -43, 0};
    static constexpr float kUnit = 0.125f;
};

}  // namespace corral::CORRAL_ISA
