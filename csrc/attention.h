// Causal attention over a paged cache, flash style: one pass over the blocks with a running maximum and sum.
//
// Each (token, head) goes over its blocks from first to last in one fixed order, whatever else shares the tile; a block that a
// token does not see leaves it unchanged.
#pragma once
#include <cstring>

#include "elementwise.h"

namespace corral::CORRAL_ISA {

constexpr int kScoreRows = kTileTokens > 4 ? 8 : 2;
constexpr int kValueRows = kTileTokens > 4 ? 4 : 2;
constexpr int kValueLanes = kTileTokens > 4 ? 4 : 2;
constexpr float kMasked = -3.0e38f;  // below every score; a finite number keeps differences finite

struct AttentionScratch {
    alignas(64) float keys[kMostHeadDim * kBlockTokens];  // one block as float32, [Dh][B]
    alignas(64) float scores[kMostAttentionRows * kBlockTokens];
    alignas(64) float out[kMostAttentionRows * kMostHeadDim];
    float most[kMostAttentionRows], sum[kMostAttentionRows], rescale[kMostAttentionRows];
    const float* q[kMostAttentionRows];
    int position[kMostAttentionRows];
};

static void store_kv(const float* k, const float* v, int kv_heads, int head_dim, int place, uint16_t* key_block,
                     uint16_t* value_block) {
    const int padded = padded_head_dim(head_dim);
    const F16 top = fset(65504.0f), bottom = fset(-65504.0f);  // stay finite in float16
    for (int h = 0; h < kv_heads; h++) {
        uint16_t* keys = key_block + static_cast<size_t>(h) * head_dim * kBlockTokens + place;
        uint16_t* values = value_block + (static_cast<size_t>(h) * kBlockTokens + place) * padded;
        for (int d = 0; d < head_dim; d += 16) {
            const int n = head_dim - d < 16 ? head_dim - d : 16;
            alignas(32) uint16_t column[16];
            fstore_half(column, fmin(fmax(load_n(k + h * head_dim + d, n), bottom), top));
            for (int i = 0; i < n; i++) keys[(d + i) * kBlockTokens] = column[i];
            fstore_half(values + d, fmin(fmax(load_n(v + h * head_dim + d, n), bottom), top));
        }
    }
}

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
template <int M, int L>
CORRAL_INLINE void add_values(AttentionScratch& s, int row, int lane, int padded, const uint16_t* values, int tokens) {
    F16 acc[M][L];
#pragma GCC unroll 4
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int l = 0; l < L; l++)
            acc[m][l] = fload(s.out + (row + m) * padded + lane + 16 * l) * fset(s.rescale[row + m]);
    for (int t = 0; t < tokens; t++) {
        F16 v[L];
#pragma GCC unroll 4
        for (int l = 0; l < L; l++) v[l] = fload_half(values + t * padded + lane + 16 * l);
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
        for (int l = 0; l < L; l++) fstore(s.out + (row + m) * padded + lane + 16 * l, acc[m][l]);
}

template <int M>
static void add_all_values(AttentionScratch& s, int row, int rows, int padded, const uint16_t* values, int tokens) {
    for (; row + M <= rows; row += M) {
        int lane = 0;
        for (; lane + 16 * kValueLanes <= padded; lane += 16 * kValueLanes)
            add_values<M, kValueLanes>(s, row, lane, padded, values, tokens);
        for (; lane < padded; lane += 16) add_values<M, 1>(s, row, lane, padded, values, tokens);
    }
    if constexpr (M > 1)
        if (row < rows) add_all_values<M - 1>(s, row, rows, padded, values, tokens);
}

// Scores of one row and block become weights; the row's running maximum and sum move on.
CORRAL_INLINE void weigh(AttentionScratch& s, int row, int first_key, int first_seen, float scale, float softcap) {
    float* scores = s.scores + row * kBlockTokens;
    F16 low = fload(scores) * fset(scale), high = fload(scores + 16) * fset(scale);
    if (softcap > 0.0f) low = softcap16(low, softcap), high = softcap16(high, softcap);
    const int from = first_seen - first_key, to = s.position[row] + 1 - first_key;
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
    const int width = a.heads * a.head_dim, start = a.context - a.new_tokens;
    int rows = 0;
    for (int t = first_token; t < last_token; t++)
        for (int h = first_head; h < last_head; h++, rows++) {
            s.q[rows] = a.q + static_cast<size_t>(a.first_row + t) * width + h * a.head_dim;
            s.position[rows] = start + t;
            s.most[rows] = kMasked;
            s.sum[rows] = 0.0f;
        }
    memset(s.out, 0, sizeof(float) * static_cast<size_t>(rows * padded));

    const int last_key = start + last_token;  // keys [0, last_key) may be seen
    const int oldest = a.window > 0 ? start + first_token - a.window + 1 : 0;
    for (int first_key = oldest > 0 ? oldest / kBlockTokens * kBlockTokens : 0; first_key < last_key;
         first_key += kBlockTokens) {
        const size_t block = static_cast<size_t>(a.block_table[first_key / kBlockTokens]) * a.block_stride;
        const uint16_t* keys = a.keys + block + static_cast<size_t>(kv_head) * a.head_dim * kBlockTokens;
        const uint16_t* values = a.values + block + static_cast<size_t>(kv_head) * padded * kBlockTokens;
        for (int i = 0; i < a.head_dim * kBlockTokens; i += 16) fstore(s.keys + i, fload_half(keys + i));
        const int tokens = last_key - first_key < kBlockTokens ? last_key - first_key : kBlockTokens;

        score_all<kScoreRows>(s, 0, rows, a.head_dim);
        for (int row = 0; row < rows; row++) {
            const int first_seen = a.window > 0 ? s.position[row] - a.window + 1 : 0;
            weigh(s, row, first_key, first_seen, a.scale, a.softcap);
        }
        add_all_values<kValueRows>(s, 0, rows, padded, values, tokens);
    }

    rows = 0;
    for (int t = first_token; t < last_token; t++)
        for (int h = first_head; h < last_head; h++, rows++) {
            float* out = a.out + static_cast<size_t>(a.first_row + t) * width + h * a.head_dim;
            const F16 inverse = fset(1.0f / s.sum[rows]);
            const float* sums = s.out + rows * padded;
            map_row(a.head_dim, out, [&](int i, int m) { return load_n(sums + i, m) * inverse; });
        }
}

}  // namespace corral::CORRAL_ISA
