// Attention over a paged cache, flash style: one pass over the blocks with a running maximum and sum.
//
// Each (token, head) goes over its blocks from first to last in one fixed order, whatever else shares the tile; a block that a
// token does not see leaves it unchanged.
#pragma once
#include <cstring>

#include "elementwise.h"
#include "half.h"

namespace corral::CORRAL_ISA {

constexpr int kScoreRows = kTileTokens > 4 ? 8 : 2;
constexpr int kValueRows = kTileTokens > 4 ? 4 : 2;
constexpr int kValueLanes = kTileTokens > 4 ? 4 : 2;
constexpr int kDirectRows = 2 * kValueRows;
constexpr float kMasked = -3.0e38f;  // below every score; a finite number keeps differences finite
alignas(64) constexpr float kPlaces[kBlockTokens] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                     16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

struct AttentionScratch {
    alignas(64) float keys[kMostHeadDim * kBlockTokens];    // one block as float32, [Dh][B]
    alignas(64) float values[kMostHeadDim * kBlockTokens];  // [B][padded Dh]
    alignas(64) float value_scales[kMostHeadDim / kCacheGroup * kBlockTokens];
    alignas(64) float scores[kMostAttentionRows * kBlockTokens];
    alignas(64) float out[kMostAttentionRows * kMostHeadDim];
    float most[kMostAttentionRows], sum[kMostAttentionRows], rescale[kMostAttentionRows], slope[kMostAttentionRows];
    const float* q[kMostAttentionRows];
    int position[kMostAttentionRows];
};

// What the cache keeps is finite, whatever it was given: the weight of 0 of a token that is not seen then takes it away.
struct CacheF32 {
    using Number = float;
    static constexpr CacheType kType = CacheType::kF32;
    static constexpr float kMost = 3.402823466e38f;
    CORRAL_INLINE_MEMBER static F16 load(const Number* p) { return fload(p); }
    CORRAL_INLINE_MEMBER static void store(Number* p, F16 x) { fstore(p, x); }
};
struct CacheF16 {
    using Number = uint16_t;
    static constexpr CacheType kType = CacheType::kF16;
    static constexpr float kMost = 65504.0f;
    CORRAL_INLINE_MEMBER static F16 load(const Number* p) { return fload_half(p); }
    CORRAL_INLINE_MEMBER static void store(Number* p, F16 x) { fstore_half(p, x); }
};
struct CacheQ8_0 {
    using Number = int8_t;
    static constexpr CacheType kType = CacheType::kQ8_0;
    static constexpr float kMost = 65504.0f;
    CORRAL_INLINE_MEMBER static F16 load(const Number* p) { return fload_i8(p); }
    CORRAL_INLINE_MEMBER static void store(Number* p, F16 x) { fstore_rounded_i8(p, x); }
};
template <class C>
constexpr bool kScaled = C::kType == CacheType::kQ8_0;

// One head of a block: see cache_bytes().
template <class C>
struct CacheHead {
    using Number = typename C::Number;
    Number* numbers;
    uint16_t* scales;

    CacheHead(uint8_t* block, int head, int dim)
        : numbers(reinterpret_cast<Number*>(block + static_cast<size_t>(head) * cache_bytes(C::kType, dim))),
          scales(kScaled<C> ? reinterpret_cast<uint16_t*>(numbers + dim * kBlockTokens) : nullptr) {}
};

// Up to 32 numbers as the cache keeps them, zeros behind. The int8 are rounded with the scale as it is kept, in float16.
template <class C>
CORRAL_INLINE void round_group(const float* x, int n, typename C::Number* out, uint16_t* scale) {
    const F16 top = fset(C::kMost), bottom = fset(-C::kMost);
    F16 a = fmin(fmax(load_n(x, n < 16 ? n : 16), bottom), top);
    F16 b = n > 16 ? fmin(fmax(load_n(x + 16, n - 16), bottom), top) : fzero();
    if constexpr (kScaled<C>) {
        *scale = float_to_half(fmost(fmax(fabs16(a), fabs16(b))) / 127.0f);
        const float d = half_to_float(*scale);
        const F16 inverse = fset(d > 0.0f ? 1.0f / d : 0.0f);
        a = a * inverse, b = b * inverse;
    }
    C::store(out, a);
    C::store(out + 16, b);
}

template <class C>
static void store_keys(const float* k, int kv_heads, int head_dim, int place, uint8_t* block) {
    alignas(64) typename C::Number column[kCacheGroup];
    for (int h = 0; h < kv_heads; h++) {
        const CacheHead<C> head(block, h, head_dim);
        for (int d = 0; d < head_dim; d += kCacheGroup) {
            const int n = head_dim - d < kCacheGroup ? head_dim - d : kCacheGroup;
            round_group<C>(k + h * head_dim + d, n, column, head.scales + d / kCacheGroup * kBlockTokens + place);
            for (int i = 0; i < n; i++) head.numbers[(d + i) * kBlockTokens + place] = column[i];
        }
    }
}

template <class C>
static void store_values(const float* v, int kv_heads, int head_dim, int place, uint8_t* block) {
    const int padded = padded_head_dim(head_dim), groups = cache_groups(padded);
    alignas(64) typename C::Number row[kCacheGroup];
    for (int h = 0; h < kv_heads; h++) {
        const CacheHead<C> head(block, h, padded);
        for (int d = 0; d < head_dim; d += kCacheGroup) {
            const int n = head_dim - d < kCacheGroup ? head_dim - d : kCacheGroup;
            round_group<C>(v + h * head_dim + d, n, row, head.scales + place * groups + d / kCacheGroup);
            const int kept = padded - d < kCacheGroup ? padded - d : kCacheGroup;
            memcpy(head.numbers + place * padded + d, row, sizeof(row[0]) * static_cast<size_t>(kept));
        }
    }
}

// One row a CacheType.
using StoreCache = void (*)(const float*, int kv_heads, int head_dim, int place, uint8_t* block);
constexpr StoreCache kStoreKeys[] = {store_keys<CacheF32>, store_keys<CacheF16>, store_keys<CacheQ8_0>};
constexpr StoreCache kStoreValues[] = {store_values<CacheF32>, store_values<CacheF16>, store_values<CacheQ8_0>};

static void store_kv(const float* k, const float* v, int kv_heads, int head_dim, int place, CachePart keys,
                     CachePart values) {
    kStoreKeys[static_cast<int>(keys.type)](k, kv_heads, head_dim, place, keys.data);
    kStoreValues[static_cast<int>(values.type)](v, kv_heads, head_dim, place, values.data);
}

// The keys of a block, [Dh][B], as float32.
template <class C>
static void load_keys(AttentionScratch& s, uint8_t* block, int kv_head, int head_dim) {
    const CacheHead<C> head(block, kv_head, head_dim);
    for (int first = 0; first < head_dim; first += kCacheGroup) {
        F16 low = fzero(), high = fzero();
        if constexpr (kScaled<C>) {
            low = fload_half(head.scales + first);  // a group of 32 numbers has the scales of 32 tokens
            high = fload_half(head.scales + first + 16);
        }
        const int end = head_dim - first < kCacheGroup ? head_dim : first + kCacheGroup;
        for (int at = first * kBlockTokens; at < end * kBlockTokens; at += kBlockTokens) {
            F16 a = C::load(head.numbers + at), b = C::load(head.numbers + at + 16);
            if constexpr (kScaled<C>) a = a * low, b = b * high;
            fstore(s.keys + at, a);
            fstore(s.keys + at + 16, b);
        }
    }
}

// The values of a block, [B][padded Dh], as float32: 16 lanes of a token.
struct FloatValues {
    const float* numbers;
    int padded;
    CORRAL_INLINE_MEMBER F16 load(int token, int lane) const { return fload(numbers + token * padded + lane); }
};
template <class C>
struct Values {
    const typename C::Number* numbers;
    const float* scales;
    int padded, groups;
    CORRAL_INLINE_MEMBER F16 load(int token, int lane) const {
        const F16 x = C::load(numbers + token * padded + lane);
        if constexpr (kScaled<C>) return x * fset(scales[token * groups + lane / kCacheGroup]);
        return x;
    }
};

// scores[row][B] = q[row] . keys
template <int M>
CORRAL_INLINE void score_rows(AttentionScratch& s, int row, int head_dim) {
    float* scores = s.scores + row * kBlockTokens;
    F16 low[M], high[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) low[m] = high[m] = fzero();
    for (int d = 0; d < head_dim; d++) {
        const F16 k0 = fload(s.keys + d * kBlockTokens), k1 = fload(s.keys + d * kBlockTokens + 16);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const F16 q = fset(s.q[row + m][d]);
            low[m] = fma(q, k0, low[m]);
            high[m] = fma(q, k1, high[m]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
        fstore(scores + m * kBlockTokens, low[m]);
        fstore(scores + m * kBlockTokens + 16, high[m]);
    }
}

template <int M>
static void score_all(AttentionScratch& s, int row, int rows, int head_dim) {
    for (; row + M <= rows; row += M) score_rows<M>(s, row, head_dim);
    if constexpr (M > 1)
        if (row < rows) score_all<M - 1>(s, row, rows, head_dim);
}

// out[row][lanes] = out * rescale + sum over the block's tokens of weight * value
template <int M, int L, class V>
CORRAL_INLINE void add_values(AttentionScratch& s, int row, int lane, const V& values, int tokens) {
    F16 acc[M][L];
#pragma GCC unroll 4
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int l = 0; l < L; l++)
            acc[m][l] = fload(s.out + (row + m) * values.padded + lane + 16 * l) * fset(s.rescale[row + m]);
    for (int t = 0; t < tokens; t++) {
        F16 v[L];
#pragma GCC unroll 4
        for (int l = 0; l < L; l++) v[l] = values.load(t, lane + 16 * l);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
            const F16 p = fset(s.scores[(row + m) * kBlockTokens + t]);
#pragma GCC unroll 4
            for (int l = 0; l < L; l++) acc[m][l] = fma(p, v[l], acc[m][l]);
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int l = 0; l < L; l++) fstore(s.out + (row + m) * values.padded + lane + 16 * l, acc[m][l]);
}

template <int M, class V>
static void add_all_values(AttentionScratch& s, int row, int rows, const V& values, int tokens) {
    for (; row + M <= rows; row += M) {
        int lane = 0;
        for (; lane + 16 * kValueLanes <= values.padded; lane += 16 * kValueLanes)
            add_values<M, kValueLanes>(s, row, lane, values, tokens);
        for (; lane < values.padded; lane += 16) add_values<M, 1>(s, row, lane, values, tokens);
    }
    if constexpr (M > 1)
        if (row < rows) add_all_values<M - 1>(s, row, rows, values, tokens);
}

// Few rows take the values as they are kept; for more they are made float32 once.
template <class C>
static void weigh_values(AttentionScratch& s, uint8_t* block, int kv_head, int padded, int rows, int tokens) {
    const CacheHead<C> head(block, kv_head, padded);
    const int groups = cache_groups(padded);
    if constexpr (kScaled<C>)
        for (int i = 0; i < groups * kBlockTokens; i += 16) fstore(s.value_scales + i, fload_half(head.scales + i));
    const Values<C> values{head.numbers, s.value_scales, padded, groups};
    if (C::kType == CacheType::kF32 || rows <= kDirectRows) {
        add_all_values<kValueRows>(s, 0, rows, values, tokens);
        return;
    }
    for (int t = 0; t < tokens; t++)
        for (int lane = 0; lane < padded; lane += 16) fstore(s.values + t * padded + lane, values.load(t, lane));
    add_all_values<kValueRows>(s, 0, rows, FloatValues{s.values, padded}, tokens);
}

// One row a CacheType.
constexpr void (*kLoadKeys[])(AttentionScratch&, uint8_t* block, int kv_head, int head_dim) = {
    load_keys<CacheF32>, load_keys<CacheF16>, load_keys<CacheQ8_0>};
constexpr void (*kWeighValues[])(AttentionScratch&, uint8_t* block, int kv_head, int padded, int rows, int tokens) = {
    weigh_values<CacheF32>, weigh_values<CacheF16>, weigh_values<CacheQ8_0>};

// Scores of one row and block become weights; the row's running maximum and sum move on.
CORRAL_INLINE void weigh(AttentionScratch& s, int row, int first_key, int first_seen, int end_seen, float scale,
                         float softcap) {
    float* scores = s.scores + row * kBlockTokens;
    F16 low = fload(scores) * fset(scale), high = fload(scores + 16) * fset(scale);
    if (softcap > 0.0f) low = softcap16(low, softcap), high = softcap16(high, softcap);
    if (s.slope[row] != 0.0f) {
        const F16 ahead = fset(static_cast<float>(first_key - s.position[row])), slope = fset(s.slope[row]);
        low = fnma(fabs16(fload(kPlaces) + ahead), slope, low);
        high = fnma(fabs16(fload(kPlaces + 16) + ahead), slope, high);
    }
    const int from = first_seen - first_key, to = end_seen - first_key;
    low = fkeep(low, from, to, kMasked);
    high = fkeep(high, from - 16, to - 16, kMasked);
    const float most = fmost(fmax(low, high));
    const float before = s.most[row], now = before > most ? before : most;
    // e^(kMasked - now) is 0, but a row that has seen nothing yet has now == kMasked: then mask again
    F16 p0 = fkeep(exp16(low - fset(now)), from, to, 0.0f);
    F16 p1 = fkeep(exp16(high - fset(now)), from - 16, to - 16, 0.0f);
    alignas(64) float e[16];
    fstore(e, exp16(fset(before - now)));
    s.rescale[row] = before == now ? 1.0f : e[0];
    s.sum[row] = __builtin_fmaf(s.sum[row], s.rescale[row], fsum(p0 + p1));
    s.most[row] = now;
    fstore(scores, p0);
    fstore(scores + 16, p1);
}

static void attend(const AttentionArgs& a, int first_token, int last_token, int first_head, int last_head) {
    auto& s = *static_cast<AttentionScratch*>(a.scratch);
    const int padded = padded_head_dim(a.head_dim), kv_head = first_head / (a.heads / a.kv_heads);
    const int start = a.context - a.new_tokens;
    int rows = 0;
    for (int t = first_token; t < last_token; t++)
        for (int h = first_head; h < last_head; h++, rows++) {
            s.q[rows] = a.q + static_cast<size_t>(a.first_row + t) * a.row_stride + h * a.head_dim;
            s.position[rows] = start + t;
            s.most[rows] = kMasked;
            s.sum[rows] = 0.0f;
            s.slope[rows] = a.slopes ? a.slopes[h] : 0.0f;
        }
    memset(s.out, 0, sizeof(float) * static_cast<size_t>(rows * padded));

    const int last_key = a.both_ways ? a.context : start + last_token;  // keys [0, last_key) may be seen
    const int oldest = a.window > 0 ? start + first_token - a.window + 1 : 0;
    for (int first_key = oldest > 0 ? oldest / kBlockTokens * kBlockTokens : 0; first_key < last_key;
         first_key += kBlockTokens) {
        const size_t block = static_cast<size_t>(a.block_table[first_key / kBlockTokens]) * a.block_stride;
        kLoadKeys[static_cast<int>(a.keys.type)](s, a.keys.data + block, kv_head, a.head_dim);
        const int tokens = last_key - first_key < kBlockTokens ? last_key - first_key : kBlockTokens;

        score_all<kScoreRows>(s, 0, rows, a.head_dim);
        for (int row = 0; row < rows; row++) {
            const int first_seen = a.window > 0 ? s.position[row] - a.window + 1 : 0;
            const int end_seen = a.both_ways ? a.context : s.position[row] + 1;
            weigh(s, row, first_key, first_seen, end_seen, a.scale, a.softcap);
        }
        kWeighValues[static_cast<int>(a.values.type)](s, a.values.data + block, kv_head, padded, rows, tokens);
    }

    rows = 0;
    for (int t = first_token; t < last_token; t++)
        for (int h = first_head; h < last_head; h++, rows++) {
            float* out = a.out + static_cast<size_t>(a.first_row + t) * a.row_stride + h * a.head_dim;
            const F16 inverse = fset(1.0f / s.sum[rows]);
            const float* sums = s.out + rows * padded;
            map_row(a.head_dim, out, [&](int i, int m) { return load_n(sums + i, m) * inverse; });
        }
}

}  // namespace corral::CORRAL_ISA
