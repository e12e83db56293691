// Helpers shared by the formats: bits of 16 interleaved rows, packed and unpacked.
//
// Interleaved: 64 bytes hold four consecutive columns ("a quad") of 16 rows, row by row. A chunk has up to 64 quads.
#pragma once
#include <cstdint>
#include <cstring>

#include "../half.h"
#include "../kernels.h"

namespace corral::CORRAL_ISA {

// What unpack writes and the tiles read: bytes and, per sub-block and row, scale and minimum.
//
// Minima of sub-blocks of 16 come in pairs, as differences: m[2i] = first - second, m[2i + 1] = second. The activations have
// the sums of 32 and of the first 16 of them: first * a + second * b = (first - second) * a + second * (a + b).
template <int R>
struct Panel {
    alignas(64) uint8_t q[kChunk / 4][R][64];
    float s[16][R][16];
    float m[16][R][16];
};

// Scales of formats that have integers for sub-blocks, as isa/tile_amx.h takes them: w = d * s * q - dmin * m. Minima in pairs of int16.
template <int R>
struct WholeScales {
    alignas(64) int32_t s[16][R][16];
    alignas(64) int32_t m[8][R][16];
    float d[R][16], dmin[R][16];
};

template <class Number>
CORRAL_INLINE void widen_16(const Number* p, int32_t* out) {
    for (int i = 0; i < 16; i++) out[i] = p[i];
}
CORRAL_INLINE void pair_16(const uint8_t* first, const uint8_t* second, int32_t* out) {
    for (int i = 0; i < 16; i++) out[i] = first[i] | second[i] << 16;
}

CORRAL_INLINE uint32_t read_u32(const uint8_t* p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

constexpr size_t round64(size_t n) { return (n + 63) / 64 * 64; }

CORRAL_INLINE uint16_t read_u16(const uint8_t* p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

// 16 bytes -> 32 numbers: the low nibbles, then the high ones
CORRAL_INLINE void nibble_halves(const uint8_t* p, uint8_t* q) {
    for (int j = 0; j < 16; j++) q[j] = p[j] & 15, q[j + 16] = p[j] >> 4;
}

// 16 rows of k bytes -> k / 4 quads of 64 bytes
CORRAL_INLINE void interleave(const uint8_t (*rows)[kChunk], int k, uint8_t (*quads)[64]) {
    for (int quad = 0; quad < k / 4; quad++)
        for (int r = 0; r < 16; r++) memcpy(quads[quad] + 4 * r, rows[r] + 4 * quad, 4);
}

// Low four bits of quads 2z and 2z + 1 to the halves of the bytes of line z.
CORRAL_INLINE void pack_nibbles(const uint8_t (*quads)[64], int count, uint8_t* out) {
    for (int z = 0; z < count / 2; z++)
        for (int i = 0; i < 64; i++)
            out[64 * z + i] = static_cast<uint8_t>((quads[2 * z][i] & 15) | (quads[2 * z + 1][i] & 15) << 4);
}

// One bit of eight quads to the bits of a line.
template <int Bit>
CORRAL_INLINE void pack_bits(const uint8_t (*quads)[64], int count, uint8_t* out) {
    for (int y = 0; y < count / 8; y++)
        for (int i = 0; i < 64; i++) {
            uint8_t byte = 0;
            for (int b = 0; b < 8; b++) byte |= static_cast<uint8_t>((quads[8 * y + b][i] >> Bit & 1) << b);
            out[64 * y + i] = byte;
        }
}

// Two bits of four quads to the bit pairs of a line.
template <int Bit>
CORRAL_INLINE void pack_pairs(const uint8_t (*quads)[64], int count, uint8_t* out) {
    for (int y = 0; y < count / 4; y++)
        for (int i = 0; i < 64; i++) {
            uint8_t byte = 0;
            for (int b = 0; b < 4; b++) byte |= static_cast<uint8_t>((quads[4 * y + b][i] >> Bit & 3) << (2 * b));
            out[64 * y + i] = byte;
        }
}

// How far ahead a single stream is fetched: enough for memory latency at full bandwidth.
constexpr int kPrefetchBytes = 9472;
CORRAL_INLINE void prefetch(const uint8_t* p) { __builtin_prefetch(p + kPrefetchBytes, 0, 3); }

// What becomes of a code of up to four bits: the number itself, or one of 16 values.
struct Same {
    CORRAL_INLINE_MEMBER U64 operator()(U64 code) const { return code; }
};
struct Lookup {
    U64 table;
    CORRAL_INLINE_MEMBER U64 operator()(U64 code) const { return ulookup(table, code); }
};

// The values of all codes as the panel has them: unsigned, with the format's offset added.
struct Table {
    alignas(16) uint8_t bytes[16];
    constexpr Table(const int8_t (&values)[16], int offset) : bytes() {
        for (int i = 0; i < 16; i++) bytes[i] = static_cast<uint8_t>(values[i] + offset);
    }
};

template <int R, class Map = Same>
CORRAL_INLINE void unpack_nibbles(const uint8_t* p, int count, Panel<R>& panel, int r, Map map = {}) {
    const U64 low = uset(15);
    for (int z = 0; z < count / 2; z++) {
        U64 both = uload(p + 64 * z);
        ustore(panel.q[2 * z][r], map(both & low));
        ustore(panel.q[2 * z + 1][r], map(ushr(both, 4) & low));
    }
}

template <int R>
CORRAL_INLINE void unpack_nibbles_fifth(const uint8_t* p, const uint8_t* high, int count, Panel<R>& panel, int r) {
    const U64 low = uset(15), bit = uset(16);
    for (int y = 0; y < count / 8; y++) {
        U64 h = uload(high + 64 * y);
        for (int z = 0; z < 4; z++) {
            U64 both = uload(p + 64 * (4 * y + z));
            int q = 8 * y + 2 * z, b = 2 * z;
            U64 first = b < 4 ? ushl(h, 4 - b) : ushr(h, b - 4), second = b + 1 < 4 ? ushl(h, 3 - b) : ushr(h, b - 3);
            ustore(panel.q[q][r], (both & low) | (first & bit));
            ustore(panel.q[q + 1][r], (ushr(both, 4) & low) | (second & bit));
        }
    }
}

template <int R>
CORRAL_INLINE void unpack_nibbles_pairs(const uint8_t* p, const uint8_t* high, int count, Panel<R>& panel, int r) {
    const U64 low = uset(15), pair = uset(48);
    for (int y = 0; y < count / 4; y++) {
        U64 h = uload(high + 64 * y);
        U64 a = uload(p + 128 * y), b = uload(p + 128 * y + 64);
        ustore(panel.q[4 * y][r], (a & low) | (ushl(h, 4) & pair));
        ustore(panel.q[4 * y + 1][r], (ushr(a, 4) & low) | (ushl(h, 2) & pair));
        ustore(panel.q[4 * y + 2][r], (b & low) | (h & pair));
        ustore(panel.q[4 * y + 3][r], (ushr(b, 4) & low) | (ushr(h, 2) & pair));
    }
}

template <int R>
CORRAL_INLINE void unpack_pairs(const uint8_t* p, int count, Panel<R>& panel, int r) {
    const U64 pair = uset(3);
    for (int y = 0; y < count / 4; y++) {
        const U64 four = uload(p + 64 * y);
        for (int z = 0; z < 4; z++) ustore(panel.q[4 * y + z][r], ushr(four, 2 * z) & pair);
    }
}

// Codes of three bits: the lower two as pairs, the third in `high`.
template <int R, class Map = Same>
CORRAL_INLINE void unpack_pairs_bit(const uint8_t* p, const uint8_t* high, int count, Panel<R>& panel, int r,
                                    Map map = {}) {
    const U64 pair = uset(3), bit = uset(4);
    for (int y = 0; y < count / 8; y++) {
        const U64 h = uload(high + 64 * y), a = uload(p + 128 * y), b = uload(p + 128 * y + 64);
        for (int z = 0; z < 8; z++) {
            const U64 low = ushr(z < 4 ? a : b, 2 * (z % 4)) & pair;
            const U64 third = (z < 2 ? ushl(h, 2 - z) : ushr(h, z - 2)) & bit;
            ustore(panel.q[8 * y + z][r], map(low | third));
        }
    }
}

// Lines of bytes that are two nibbles: the low ones, and the high ones.
CORRAL_INLINE void unpack_nibbles_apart(const uint8_t* p, int lines, uint8_t* low, uint8_t* high) {
    const U64 nibble = uset(15);
    for (int line = 0; line < lines; line++) {
        const U64 both = uload(p + 64 * line);
        ustore(low + 64 * line, both & nibble);
        ustore(high + 64 * line, ushr(both, 4) & nibble);
    }
}

// 16 int8 of each sub-block, then 16 float16 that scale them all
template <int Subs, int R>
CORRAL_INLINE void unpack_signed_scales(const uint8_t* p, Panel<R>& panel, int r) {
    const F16 d = fload_half(reinterpret_cast<const uint16_t*>(p + 16 * Subs));
    for (int j = 0; j < Subs; j++) fstore(panel.s[j][r], d * fload_i8(reinterpret_cast<const int8_t*>(p + 16 * j)));
}

template <int Subs, int R>
CORRAL_INLINE void whole_signed_scales(const uint8_t* p, WholeScales<R>& scales, int r) {
    for (int j = 0; j < Subs; j++) widen_16(reinterpret_cast<const int8_t*>(p + 16 * j), scales.s[j][r]);
    fstore(scales.d[r], fload_half(reinterpret_cast<const uint16_t*>(p + 16 * Subs)));
}

// 16 float16 of each of `subs` sub-blocks, times `sign`
template <int R>
CORRAL_INLINE void unpack_halves(const uint8_t* p, int subs, float sign, float (*out)[R][16], int r) {
    const F16 f = fset(sign);
    for (int j = 0; j < subs; j++) fstore(out[j][r], fload_half(reinterpret_cast<const uint16_t*>(p + 32 * j)) * f);
}

}  // namespace corral::CORRAL_ISA
