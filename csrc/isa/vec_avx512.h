// 16 lanes in one 512-bit register. With VNNI a dot of four bytes a lane is one instruction.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace corral::CORRAL_ISA {

#define CORRAL_INLINE static inline __attribute__((always_inline))
#define CORRAL_INLINE_MEMBER inline __attribute__((always_inline))

struct F16 {
    __m512 v;
};
struct I16 {
    __m512i v;
};
struct U64 {
    __m512i v;
};

#if defined(__AVX512VNNI__)
#define CORRAL_WHOLE_CHUNKS  // chunks with one sum are worth it: see whole.h
constexpr bool kSignedWide = false, kPairSums = false;
#else
constexpr bool kSignedWide = true, kPairSums = true;
#endif
constexpr int kTileTokens = 6;  // with 2 row groups: 12 integer and 12 float accumulators of 32 registers
constexpr int kTileGroups = 2;
constexpr int kFloatTileTokens = 8;

CORRAL_INLINE F16 fzero() { return {_mm512_setzero_ps()}; }
CORRAL_INLINE F16 fset(float x) { return {_mm512_set1_ps(x)}; }
CORRAL_INLINE F16 fload(const float* p) { return {_mm512_loadu_ps(p)}; }
CORRAL_INLINE void fstore(float* p, F16 x) { _mm512_storeu_ps(p, x.v); }
CORRAL_INLINE F16 fload_some(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
}
CORRAL_INLINE void fstore_some(float* p, F16 x, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x.v);
}
CORRAL_INLINE F16 fload_half(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
CORRAL_INLINE void fstore_half(uint16_t* p, F16 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
CORRAL_INLINE F16 fload_bf16(const uint16_t* p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
CORRAL_INLINE F16 fload_u8(const uint8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
CORRAL_INLINE F16 fload_i8(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
CORRAL_INLINE F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
CORRAL_INLINE F16 operator-(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
CORRAL_INLINE F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
CORRAL_INLINE F16 operator/(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
CORRAL_INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
CORRAL_INLINE F16 fnma(F16 a, F16 b, F16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
CORRAL_INLINE F16 fmax(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
CORRAL_INLINE F16 fmin(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
CORRAL_INLINE F16 fabs16(F16 a) { return {_mm512_abs_ps(a.v)}; }
CORRAL_INLINE F16 fround(F16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a where x < y, else b
CORRAL_INLINE F16 fselect_lt(F16 x, F16 y, F16 a, F16 b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), b.v, a.v)};
}
// the lanes [first, last) of a, `fill` elsewhere
CORRAL_INLINE F16 fkeep(F16 a, int first, int last, float fill) {
    uint32_t low = last <= 0 ? 0u : last >= 16 ? 0xffffu : (1u << last) - 1;
    uint32_t cut = first <= 0 ? 0u : first >= 16 ? 0xffffu : (1u << first) - 1;
    return {_mm512_mask_blend_ps(static_cast<__mmask16>(low & ~cut), _mm512_set1_ps(fill), a.v)};
}
// the lanes added as a balanced tree: i and i + 8, then i + 4, i + 2, i + 1
CORRAL_INLINE float fsum(F16 x) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
CORRAL_INLINE float fmost(F16 x) {
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
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
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
// 2^n for integral n in [-126, 127]
CORRAL_INLINE F16 fpow2(F16 n) {
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(e, 23))};
}

CORRAL_INLINE I16 izero() { return {_mm512_setzero_si512()}; }
template <int Shift>
CORRAL_INLINE I16 iset_shifted(const int32_t* p) {
    return {_mm512_slli_epi32(_mm512_set1_epi32(*p), Shift)};
}
CORRAL_INLINE F16 to_float(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }

CORRAL_INLINE U64 uload(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
CORRAL_INLINE void ustore(uint8_t* p, U64 x) { _mm512_storeu_si512(p, x.v); }
CORRAL_INLINE U64 uset(uint8_t x) { return {_mm512_set1_epi8(static_cast<char>(x))}; }
CORRAL_INLINE U64 operator&(U64 a, U64 b) { return {_mm512_and_si512(a.v, b.v)}; }
CORRAL_INLINE U64 operator|(U64 a, U64 b) { return {_mm512_or_si512(a.v, b.v)}; }
CORRAL_INLINE U64 operator^(U64 a, U64 b) { return {_mm512_xor_si512(a.v, b.v)}; }
// shifts of 16-bit lanes: mask afterwards
CORRAL_INLINE U64 ushr(U64 a, int n) { return {_mm512_srl_epi16(a.v, _mm_cvtsi32_si128(n))}; }
CORRAL_INLINE U64 ushl(U64 a, int n) { return {_mm512_sll_epi16(a.v, _mm_cvtsi32_si128(n))}; }

// 16 bytes, to look up in
CORRAL_INLINE U64 utable(const uint8_t* p) {
    return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
// table[i] for each byte i, below 16
CORRAL_INLINE U64 ulookup(U64 table, U64 i) { return {_mm512_shuffle_epi8(table.v, i.v)}; }

// Sums of two products, a lane for each half of four bytes.
struct Pairs {
    __m512i v;
};
CORRAL_INLINE __m512i broadcast_four(const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}
CORRAL_INLINE Pairs dot_pairs(U64 w, const int8_t* x) { return {_mm512_maddubs_epi16(w.v, broadcast_four(x))}; }
CORRAL_INLINE Pairs operator+(Pairs x, Pairs y) { return {_mm512_add_epi16(x.v, y.v)}; }
CORRAL_INLINE I16 add_pairs(I16 acc, Pairs p) {
    return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(p.v, _mm512_set1_epi16(1)))};
}

// acc[i] += sum over four bytes of w[4i + j] * x[j]; x points at four int8 in [-127, 127], w up to 127 (255 with VNNI)
CORRAL_INLINE I16 dot(I16 acc, U64 w, const int8_t* x) {
#if defined(__AVX512VNNI__)
    return {_mm512_dpbusd_epi32(acc.v, w.v, broadcast_four(x))};
#else
    return add_pairs(acc, dot_pairs(w, x));
#endif
}
// the same for signed w
CORRAL_INLINE I16 dot_signed(I16 acc, U64 w, const int8_t* x) {
    __m512i b = broadcast_four(x);
    __m512i signed_x = _mm512_mask_sub_epi8(b, _mm512_movepi8_mask(w.v), _mm512_setzero_si512(), b);
    return add_pairs(acc, {_mm512_maddubs_epi16(_mm512_abs_epi8(w.v), signed_x)});
}

#if defined(CORRAL_WHOLE_CHUNKS)
// Scales of 16 rows, for codes of a quad: bytes, as are the products.
CORRAL_INLINE __m512i in_words(const uint8_t* scales) {
    const __m512i once = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
    return _mm512_or_si512(once, _mm512_slli_epi32(once, 16));
}

// Code times scale, below 256: those of two neighbours are one product of 16 bits, where nothing is carried.
class RowScales {
   public:
    explicit RowScales(const uint8_t* scales) : factors_(in_words(scales)) {}

    CORRAL_INLINE_MEMBER U64 times(U64 codes) const { return {_mm512_mullo_epi16(codes.v, factors_)}; }

   private:
    const __m512i factors_;
};

// (code - Center) * scale + Offset, from 0 to 255, where scales are int8. Bytes wrap, so what does not depend on the code is added last.
template <int Center, int Offset>
class SignedRowScales {
   public:
    explicit SignedRowScales(const uint8_t* scales) : factors_(in_words(scales)) {
        const __m512i words =
            _mm512_sub_epi16(_mm512_set1_epi16(Offset), _mm512_mullo_epi16(factors_, _mm512_set1_epi16(Center)));
        rest_ = _mm512_mask_blend_epi8(kOdd, words, _mm512_slli_epi16(words, 8));
    }

    CORRAL_INLINE_MEMBER U64 times(U64 codes) const {
        const __m512i even = _mm512_mullo_epi16(codes.v, factors_),
                      odd = _mm512_mullo_epi16(_mm512_maskz_mov_epi8(kOdd, codes.v), factors_);
        return {_mm512_add_epi8(_mm512_mask_blend_epi8(kOdd, even, odd), rest_)};
    }

   private:
    static constexpr __mmask64 kOdd = 0xaaaaaaaaaaaaaaaa;
    const __m512i factors_;
    __m512i rest_;
};
#endif

}  // namespace corral::CORRAL_ISA
