// 16 lanes in two 256-bit registers. With AVX-VNNI a dot of four bytes a lane is one instruction.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace corral::CORRAL_ISA {

#define CORRAL_INLINE static inline __attribute__((always_inline))
#define CORRAL_INLINE_MEMBER inline __attribute__((always_inline))

struct F16 {
    __m256 a, b;
};
struct I16 {
    __m256i a, b;
};
struct U64 {
    __m256i a, b;
};

#if defined(__AVXVNNI__)
constexpr bool kSignedWide = false, kPairSums = false;
#else
constexpr bool kSignedWide = true, kPairSums = true;
#endif
constexpr int kTileTokens = 3;  // with 1 row group of 2 registers: 6 integer and 6 float accumulators of 16 registers
constexpr int kTileGroups = 1;
constexpr int kFloatTileTokens = 5;

CORRAL_INLINE F16 fzero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
CORRAL_INLINE F16 fset(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
CORRAL_INLINE F16 fload(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
CORRAL_INLINE void fstore(float* p, F16 x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
CORRAL_INLINE F16 fload_some(const float* p, int n) {
    alignas(32) float t[16] = {};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return fload(t);
}
CORRAL_INLINE void fstore_some(float* p, F16 x, int n) {
    alignas(32) float t[16];
    fstore(t, x);
    for (int i = 0; i < n; i++) p[i] = t[i];
}
CORRAL_INLINE F16 fload_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
CORRAL_INLINE void fstore_half(uint16_t* p, F16 x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
CORRAL_INLINE F16 fload_bf16(const uint16_t* p) {
    __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    __m256i hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
CORRAL_INLINE F16 fload_u8(const uint8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}
CORRAL_INLINE F16 fload_i8(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}
CORRAL_INLINE F16 operator+(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
CORRAL_INLINE F16 operator-(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
CORRAL_INLINE F16 operator*(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
CORRAL_INLINE F16 operator/(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
CORRAL_INLINE F16 fma(F16 x, F16 y, F16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
CORRAL_INLINE F16 fnma(F16 x, F16 y, F16 z) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
CORRAL_INLINE F16 fmax(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
CORRAL_INLINE F16 fmin(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
CORRAL_INLINE F16 fabs16(F16 x) {
    __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return {_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask)};
}
CORRAL_INLINE F16 fround(F16 x) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
// a where x < y, else b
CORRAL_INLINE F16 fselect_lt(F16 x, F16 y, F16 a, F16 b) {
    return {_mm256_blendv_ps(b.a, a.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(b.b, a.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
// the lanes [first, last) of x, `fill` elsewhere
CORRAL_INLINE F16 fkeep(F16 x, int first, int last, float fill) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i high = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
    __m256i f = _mm256_set1_epi32(first - 1), l = _mm256_set1_epi32(last);
    __m256 in_a = _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(lane, f), _mm256_cmpgt_epi32(l, lane)));
    __m256 in_b = _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(high, f), _mm256_cmpgt_epi32(l, high)));
    __m256 other = _mm256_set1_ps(fill);
    return {_mm256_blendv_ps(other, x.a, in_a), _mm256_blendv_ps(other, x.b, in_b)};
}
// the lanes added as a balanced tree: i and i + 8, then i + 4, i + 2, i + 1
CORRAL_INLINE float fsum(F16 x) {
    __m256 a = _mm256_add_ps(x.a, x.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
CORRAL_INLINE float fmost(F16 x) {
    __m256 a = _mm256_max_ps(x.a, x.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
// the sum of 16 int8
CORRAL_INLINE int32_t sum_i8(const int8_t* p) {
    __m128i biased = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), _mm_set1_epi8(-128));
    __m128i halves = _mm_sad_epu8(biased, _mm_setzero_si128());
    return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - 16 * 128;
}
CORRAL_INLINE void fstore_rounded_i8(int8_t* p, F16 x) {
    __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
// 2^n for integral n in [-126, 127]
CORRAL_INLINE F16 fpow2(F16 n) {
    __m256i bias = _mm256_set1_epi32(127);
    __m256i a = _mm256_add_epi32(_mm256_cvtps_epi32(n.a), bias), b = _mm256_add_epi32(_mm256_cvtps_epi32(n.b), bias);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 23)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 23))};
}

CORRAL_INLINE I16 izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
template <int Shift>
CORRAL_INLINE I16 iset_shifted(const int32_t* p) {
    __m256i x = _mm256_slli_epi32(_mm256_set1_epi32(*p), Shift);
    return {x, x};
}
CORRAL_INLINE F16 to_float(I16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

CORRAL_INLINE U64 uload(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
CORRAL_INLINE void ustore(uint8_t* p, U64 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.b);
}
CORRAL_INLINE U64 uset(uint8_t x) {
    __m256i v = _mm256_set1_epi8(static_cast<char>(x));
    return {v, v};
}
CORRAL_INLINE U64 operator&(U64 x, U64 y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
CORRAL_INLINE U64 operator|(U64 x, U64 y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
CORRAL_INLINE U64 operator^(U64 x, U64 y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
// shifts of 16-bit lanes: mask afterwards
CORRAL_INLINE U64 ushr(U64 x, int n) {
    __m128i c = _mm_cvtsi32_si128(n);
    return {_mm256_srl_epi16(x.a, c), _mm256_srl_epi16(x.b, c)};
}
CORRAL_INLINE U64 ushl(U64 x, int n) {
    __m128i c = _mm_cvtsi32_si128(n);
    return {_mm256_sll_epi16(x.a, c), _mm256_sll_epi16(x.b, c)};
}

// 16 bytes, to look up in
CORRAL_INLINE U64 utable(const uint8_t* p) {
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {v, v};
}
// table[i] for each byte i, below 16
CORRAL_INLINE U64 ulookup(U64 table, U64 i) {
    return {_mm256_shuffle_epi8(table.a, i.a), _mm256_shuffle_epi8(table.b, i.b)};
}

// Sums of two products, a lane for each half of four bytes.
struct Pairs {
    __m256i a, b;
};
CORRAL_INLINE __m256i broadcast_four(const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
CORRAL_INLINE Pairs dot_pairs(U64 w, const int8_t* x) {
    __m256i b = broadcast_four(x);
    return {_mm256_maddubs_epi16(w.a, b), _mm256_maddubs_epi16(w.b, b)};
}
// gcc would first make the products of a whole sub-block, and spill them, and then add: the asm keeps each sum where it stands.
CORRAL_INLINE Pairs operator+(Pairs x, Pairs y) {
    Pairs sum = {_mm256_add_epi16(x.a, y.a), _mm256_add_epi16(x.b, y.b)};
    asm volatile("" : "+x"(sum.a), "+x"(sum.b));
    return sum;
}
CORRAL_INLINE I16 add_pairs(I16 acc, Pairs p) {
    __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(p.a, ones)),
            _mm256_add_epi32(acc.b, _mm256_madd_epi16(p.b, ones))};
}

// acc[i] += sum over four bytes of w[4i + j] * x[j]; x points at four int8 in [-127, 127], w up to 127 (255 with VNNI)
CORRAL_INLINE I16 dot(I16 acc, U64 w, const int8_t* x) {
#if defined(__AVXVNNI__)
    __m256i b = broadcast_four(x);
    return {_mm256_dpbusd_avx_epi32(acc.a, w.a, b), _mm256_dpbusd_avx_epi32(acc.b, w.b, b)};
#else
    return add_pairs(acc, dot_pairs(w, x));
#endif
}
// the same for signed w
CORRAL_INLINE I16 dot_signed(I16 acc, U64 w, const int8_t* x) {
    __m256i b = broadcast_four(x);
    return add_pairs(acc, {_mm256_maddubs_epi16(_mm256_abs_epi8(w.a), _mm256_sign_epi8(b, w.a)),
                           _mm256_maddubs_epi16(_mm256_abs_epi8(w.b), _mm256_sign_epi8(b, w.b))});
}

}  // namespace corral::CORRAL_ISA
