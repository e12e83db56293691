// 16 lanes in four 128-bit registers of ARMv8-A. With the dot product of ARMv8.2 a dot of four bytes a lane is one instruction.
//
// NaNs and zeros go through comparisons and rounding as they do on x86, so that the variants of both agree.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace corral::CORRAL_ISA {

#define CORRAL_INLINE static inline __attribute__((always_inline))
#define CORRAL_INLINE_MEMBER inline __attribute__((always_inline))

struct F16 {
    float32x4_t a, b, c, d;
};
struct I16 {
    int32x4_t a, b, c, d;
};
struct U64 {
    uint8x16_t a, b, c, d;
};

constexpr bool kSignedWide = true, kPairSums = false;
constexpr int kTileTokens = 3;  // with 1 row group of 4 registers: 12 integer and 12 float accumulators of 32 registers
constexpr int kTileGroups = 1;
constexpr int kFloatTileTokens = 6;

// fn of each register of the operands
template <class To, class Fn, class... From>
CORRAL_INLINE To each(Fn fn, const From&... x) {
    return {fn(x.a...), fn(x.b...), fn(x.c...), fn(x.d...)};
}
template <class To, class V>
CORRAL_INLINE To four(V v) {
    return {v, v, v, v};
}

// as the instructions of x86: the second when either is NaN
CORRAL_INLINE float32x4_t most_of(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
CORRAL_INLINE float32x4_t least_of(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
CORRAL_INLINE F16 floats(int16x8_t low, int16x8_t high) {
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
}

CORRAL_INLINE F16 fset(float x) { return four<F16>(vdupq_n_f32(x)); }
CORRAL_INLINE F16 fzero() { return fset(0.0f); }
CORRAL_INLINE F16 fload(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
CORRAL_INLINE void fstore(float* p, F16 x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}
CORRAL_INLINE F16 fload_some(const float* p, int n) {
    float t[16] = {};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return fload(t);
}
CORRAL_INLINE void fstore_some(float* p, F16 x, int n) {
    float t[16];
    fstore(t, x);
    for (int i = 0; i < n; i++) p[i] = t[i];
}
CORRAL_INLINE F16 fload_half(const uint16_t* p) {
    const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p)), high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
    return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
            vcvt_high_f32_f16(high)};
}
CORRAL_INLINE void fstore_half(uint16_t* p, F16 x) {
    vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)));
    vst1q_u16(p + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d)));
}
CORRAL_INLINE F16 fload_bf16(const uint16_t* p) {
    const uint16x8_t zero = vdupq_n_u16(0), low = vld1q_u16(p), high = vld1q_u16(p + 8);
    return {vreinterpretq_f32_u16(vzip1q_u16(zero, low)), vreinterpretq_f32_u16(vzip2q_u16(zero, low)),
            vreinterpretq_f32_u16(vzip1q_u16(zero, high)), vreinterpretq_f32_u16(vzip2q_u16(zero, high))};
}
CORRAL_INLINE F16 fload_u8(const uint8_t* p) {
    const uint8x16_t x = vld1q_u8(p);
    return floats(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), vreinterpretq_s16_u16(vmovl_high_u8(x)));
}
CORRAL_INLINE F16 fload_i8(const int8_t* p) {
    const int8x16_t x = vld1q_s8(p);
    return floats(vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
}
CORRAL_INLINE F16 operator+(F16 x, F16 y) { return each<F16>(vaddq_f32, x, y); }
CORRAL_INLINE F16 operator-(F16 x, F16 y) { return each<F16>(vsubq_f32, x, y); }
CORRAL_INLINE F16 operator*(F16 x, F16 y) { return each<F16>(vmulq_f32, x, y); }
CORRAL_INLINE F16 operator/(F16 x, F16 y) { return each<F16>(vdivq_f32, x, y); }
CORRAL_INLINE F16 fma(F16 x, F16 y, F16 z) { return each<F16>(vfmaq_f32, z, x, y); }
CORRAL_INLINE F16 fnma(F16 x, F16 y, F16 z) { return each<F16>(vfmsq_f32, z, x, y); }
CORRAL_INLINE F16 fmax(F16 x, F16 y) { return each<F16>(most_of, x, y); }
CORRAL_INLINE F16 fmin(F16 x, F16 y) { return each<F16>(least_of, x, y); }
CORRAL_INLINE F16 fabs16(F16 x) { return each<F16>(vabsq_f32, x); }
CORRAL_INLINE F16 fround(F16 x) { return each<F16>(vrndnq_f32, x); }
// a where x < y, else b
CORRAL_INLINE F16 fselect_lt(F16 x, F16 y, F16 a, F16 b) {
    auto select = [](float32x4_t p, float32x4_t q, float32x4_t s, float32x4_t t) {
        return vbslq_f32(vcltq_f32(p, q), s, t);
    };
    return each<F16>(select, x, y, a, b);
}
// the lanes [first, last) of x, `fill` elsewhere
CORRAL_INLINE F16 fkeep(F16 x, int first, int last, float fill) {
    constexpr int32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const I16 lane = {vld1q_s32(numbers), vld1q_s32(numbers + 4), vld1q_s32(numbers + 8), vld1q_s32(numbers + 12)};
    const int32x4_t from = vdupq_n_s32(first), to = vdupq_n_s32(last);
    const float32x4_t other = vdupq_n_f32(fill);
    auto keep = [&](float32x4_t v, int32x4_t i) {
        return vbslq_f32(vandq_u32(vcgeq_s32(i, from), vcltq_s32(i, to)), v, other);
    };
    return each<F16>(keep, x, lane);
}
// the lanes joined as a balanced tree: i and i + 8, then i + 4, i + 2, i + 1
template <class Fn>
CORRAL_INLINE float join(F16 x, Fn fn) {
    float32x4_t v = fn(fn(x.a, x.c), fn(x.b, x.d));
    v = fn(v, vextq_f32(v, v, 2));
    return vgetq_lane_f32(fn(v, vdupq_laneq_f32(v, 1)), 0);
}
CORRAL_INLINE float fsum(F16 x) { return join(x, vaddq_f32); }
CORRAL_INLINE float fmost(F16 x) { return join(x, most_of); }
// the sum of 16 int8
CORRAL_INLINE int32_t sum_i8(const int8_t* p) { return vaddlvq_s8(vld1q_s8(p)); }
// NaN becomes -128
CORRAL_INLINE void fstore_rounded_i8(int8_t* p, F16 x) {
    const float32x4_t least = vdupq_n_f32(-128.0f);
    const I16 i = each<I16>([&](float32x4_t v) { return vcvtnq_s32_f32(most_of(v, least)); }, x);
    const int16x8_t low = vqmovn_high_s32(vqmovn_s32(i.a), i.b), high = vqmovn_high_s32(vqmovn_s32(i.c), i.d);
    vst1q_s8(p, vqmovn_high_s16(vqmovn_s16(low), high));
}
// 2^n for integral n in [-126, 127]
CORRAL_INLINE F16 fpow2(F16 n) {
    auto power = [](float32x4_t v) {
        return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(v), vdupq_n_s32(127)), 23));
    };
    return each<F16>(power, n);
}

CORRAL_INLINE I16 izero() { return four<I16>(vdupq_n_s32(0)); }
template <int Shift>
CORRAL_INLINE I16 iset_shifted(const int32_t* p) {
    return four<I16>(vshlq_n_s32(vld1q_dup_s32(p), Shift));
}
CORRAL_INLINE F16 to_float(I16 x) { return each<F16>(vcvtq_f32_s32, x); }

CORRAL_INLINE U64 uload(const uint8_t* p) {
    return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)};
}
CORRAL_INLINE void ustore(uint8_t* p, U64 x) {
    vst1q_u8(p, x.a);
    vst1q_u8(p + 16, x.b);
    vst1q_u8(p + 32, x.c);
    vst1q_u8(p + 48, x.d);
}
CORRAL_INLINE U64 uset(uint8_t x) { return four<U64>(vdupq_n_u8(x)); }
CORRAL_INLINE U64 operator&(U64 x, U64 y) { return each<U64>(vandq_u8, x, y); }
CORRAL_INLINE U64 operator|(U64 x, U64 y) { return each<U64>(vorrq_u8, x, y); }
CORRAL_INLINE U64 operator^(U64 x, U64 y) { return each<U64>(veorq_u8, x, y); }
// shifts of bytes; other variants shift 16-bit lanes, so mask afterwards
CORRAL_INLINE U64 ushr(U64 x, int n) {
    return each<U64>([n](uint8x16_t v) { return v >> n; }, x);
}
CORRAL_INLINE U64 ushl(U64 x, int n) {
    return each<U64>([n](uint8x16_t v) { return v << n; }, x);
}

// 16 bytes, to look up in
CORRAL_INLINE U64 utable(const uint8_t* p) { return four<U64>(vld1q_u8(p)); }
// table[i] for each byte i, below 16
CORRAL_INLINE U64 ulookup(U64 table, U64 i) { return each<U64>(vqtbl1q_u8, table, i); }

struct Pairs {};  // sums in 16 bits are of no use here

// acc[i] += sum over four bytes of w[4i + j] * x[j]; x points at four int8 in [-127, 127], w is signed
CORRAL_INLINE I16 dot_signed(I16 acc, U64 w, const int8_t* x) {
    int32_t quad;
    __builtin_memcpy(&quad, x, 4);
    const int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(quad));
    auto add = [b](int32x4_t sum, uint8x16_t bytes) {
        const int8x16_t q = vreinterpretq_s8_u8(bytes);
#if defined(__ARM_FEATURE_DOTPROD)
        return vdotq_s32(sum, q, b);
#else
        // two products of at most 128 * 127 fit in 16 bits
        const int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(q), vget_low_s8(b)), vmull_high_s8(q, b));
        return vpadalq_s16(sum, pairs);
#endif
    };
    return each<I16>(add, acc, w);
}
// the same for w up to 127
CORRAL_INLINE I16 dot(I16 acc, U64 w, const int8_t* x) { return dot_signed(acc, w, x); }

}  // namespace corral::CORRAL_ISA
