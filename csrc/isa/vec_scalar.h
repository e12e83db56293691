// 16 lanes in plain arrays: for CPUs without AVX2, and the twin that the other variants are tested against.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../half.h"

namespace corral::CORRAL_ISA {

#define CORRAL_INLINE static inline
#define CORRAL_INLINE_MEMBER inline

struct F16 {
    float v[16];
};
struct I16 {
    int32_t v[16];
};
struct U64 {
    uint8_t v[64];
};

constexpr bool kSignedWide = false, kPairSums = false;
constexpr int kTileTokens = 2;
constexpr int kTileGroups = 1;
constexpr int kFloatTileTokens = 2;

template <class Fn>
CORRAL_INLINE F16 lanes(Fn fn) {
    F16 r;
    for (int i = 0; i < 16; i++) r.v[i] = fn(i);
    return r;
}

CORRAL_INLINE F16 fset(float x) {
    return lanes([&](int) { return x; });
}
CORRAL_INLINE F16 fzero() { return fset(0.0f); }
CORRAL_INLINE F16 fload(const float* p) {
    return lanes([&](int i) { return p[i]; });
}
CORRAL_INLINE void fstore(float* p, F16 x) { memcpy(p, x.v, sizeof x.v); }
CORRAL_INLINE F16 fload_some(const float* p, int n) {
    return lanes([&](int i) { return i < n ? p[i] : 0.0f; });
}
CORRAL_INLINE void fstore_some(float* p, F16 x, int n) { memcpy(p, x.v, sizeof(float) * static_cast<size_t>(n)); }
CORRAL_INLINE F16 fload_half(const uint16_t* p) {
    return lanes([&](int i) { return half_to_float(p[i]); });
}
CORRAL_INLINE void fstore_half(uint16_t* p, F16 x) {
    for (int i = 0; i < 16; i++) p[i] = float_to_half(x.v[i]);
}
CORRAL_INLINE F16 fload_bf16(const uint16_t* p) {
    return lanes([&](int i) { return bf16_to_float(p[i]); });
}
CORRAL_INLINE F16 fload_u8(const uint8_t* p) {
    return lanes([&](int i) { return static_cast<float>(p[i]); });
}
CORRAL_INLINE F16 fload_i8(const int8_t* p) {
    return lanes([&](int i) { return static_cast<float>(p[i]); });
}
CORRAL_INLINE F16 operator+(F16 a, F16 b) {
    return lanes([&](int i) { return a.v[i] + b.v[i]; });
}
CORRAL_INLINE F16 operator-(F16 a, F16 b) {
    return lanes([&](int i) { return a.v[i] - b.v[i]; });
}
CORRAL_INLINE F16 operator*(F16 a, F16 b) {
    return lanes([&](int i) { return a.v[i] * b.v[i]; });
}
CORRAL_INLINE F16 operator/(F16 a, F16 b) {
    return lanes([&](int i) { return a.v[i] / b.v[i]; });
}
CORRAL_INLINE F16 fma(F16 a, F16 b, F16 c) {
    return lanes([&](int i) { return std::fmaf(a.v[i], b.v[i], c.v[i]); });
}
CORRAL_INLINE F16 fnma(F16 a, F16 b, F16 c) {
    return lanes([&](int i) { return std::fmaf(-a.v[i], b.v[i], c.v[i]); });
}
// as the vector instructions: the second when either is NaN
CORRAL_INLINE F16 fmax(F16 a, F16 b) {
    return lanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
CORRAL_INLINE F16 fmin(F16 a, F16 b) {
    return lanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
CORRAL_INLINE F16 fabs16(F16 a) {
    return lanes([&](int i) { return std::fabs(a.v[i]); });
}
CORRAL_INLINE F16 fround(F16 a) {
    return lanes([&](int i) { return std::nearbyintf(a.v[i]); });
}
// a where x < y, else b
CORRAL_INLINE F16 fselect_lt(F16 x, F16 y, F16 a, F16 b) {
    return lanes([&](int i) { return x.v[i] < y.v[i] ? a.v[i] : b.v[i]; });
}
// the lanes [first, last) of a, `fill` elsewhere
CORRAL_INLINE F16 fkeep(F16 a, int first, int last, float fill) {
    return lanes([&](int i) { return first <= i && i < last ? a.v[i] : fill; });
}
// the lanes added as a balanced tree: i and i + 8, then i + 4, i + 2, i + 1
CORRAL_INLINE float fsum(F16 x) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) x.v[i] += x.v[i + width];
    return x.v[0];
}
CORRAL_INLINE float fmost(F16 x) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) x.v[i] = x.v[i] > x.v[i + width] ? x.v[i] : x.v[i + width];
    return x.v[0];
}
// the sum of 16 int8
CORRAL_INLINE int32_t sum_i8(const int8_t* p) {
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) sum += p[i];
    return sum;
}
CORRAL_INLINE void fstore_rounded_i8(int8_t* p, F16 x) {
    for (int i = 0; i < 16; i++) {
        float r = std::nearbyintf(x.v[i]);
        p[i] = static_cast<int8_t>(r > 127.0f ? 127.0f : r >= -128.0f ? r : -128.0f);
    }
}
// 2^n for integral n in [-126, 127]
CORRAL_INLINE F16 fpow2(F16 n) {
    return lanes([&](int i) {
        // a NaN has no integer; any finite result will do, as it meets the NaN again
        uint32_t bits = n.v[i] == n.v[i] ? static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23 : 0;
        float r;
        memcpy(&r, &bits, 4);
        return r;
    });
}

CORRAL_INLINE I16 izero() { return {}; }
template <int Shift>
CORRAL_INLINE I16 iset_shifted(const int32_t* p) {
    I16 r;
    for (int i = 0; i < 16; i++) r.v[i] = *p * (1 << Shift);
    return r;
}
CORRAL_INLINE F16 to_float(I16 a) {
    return lanes([&](int i) { return static_cast<float>(a.v[i]); });
}

CORRAL_INLINE U64 uload(const uint8_t* p) {
    U64 r;
    memcpy(r.v, p, 64);
    return r;
}
CORRAL_INLINE void ustore(uint8_t* p, U64 x) { memcpy(p, x.v, 64); }
CORRAL_INLINE U64 uset(uint8_t x) {
    U64 r;
    memset(r.v, x, 64);
    return r;
}
CORRAL_INLINE U64 operator&(U64 a, U64 b) {
    for (int i = 0; i < 64; i++) a.v[i] &= b.v[i];
    return a;
}
CORRAL_INLINE U64 operator|(U64 a, U64 b) {
    for (int i = 0; i < 64; i++) a.v[i] |= b.v[i];
    return a;
}
CORRAL_INLINE U64 operator^(U64 a, U64 b) {
    for (int i = 0; i < 64; i++) a.v[i] ^= b.v[i];
    return a;
}
// shifts of bytes; the vector variants shift 16-bit lanes, so mask afterwards
CORRAL_INLINE U64 ushr(U64 a, int n) {
    for (int i = 0; i < 64; i++) a.v[i] = static_cast<uint8_t>(a.v[i] >> n);
    return a;
}
CORRAL_INLINE U64 ushl(U64 a, int n) {
    for (int i = 0; i < 64; i++) a.v[i] = static_cast<uint8_t>(a.v[i] << n);
    return a;
}

// 16 bytes, to look up in
CORRAL_INLINE U64 utable(const uint8_t* p) {
    U64 r;
    for (int i = 0; i < 64; i++) r.v[i] = p[i % 16];
    return r;
}
// table[i] for each byte i, below 16
CORRAL_INLINE U64 ulookup(U64 table, U64 i) {
    for (int k = 0; k < 64; k++) i.v[k] = table.v[i.v[k]];
    return i;
}

struct Pairs {};  // sums in 16 bits are of no use here

// acc[i] += sum over four bytes of w[4i + j] * x[j]
CORRAL_INLINE I16 dot(I16 acc, U64 w, const int8_t* x) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) acc.v[i] += static_cast<int32_t>(w.v[4 * i + j]) * x[j];
    return acc;
}
// the same for signed w
CORRAL_INLINE I16 dot_signed(I16 acc, U64 w, const int8_t* x) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) acc.v[i] += static_cast<int32_t>(static_cast<int8_t>(w.v[4 * i + j])) * x[j];
    return acc;
}

}  // namespace corral::CORRAL_ISA
