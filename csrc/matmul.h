// The one matmul: for any number of tokens, unpack a panel of rows x 256 columns into L1, then run all tokens over it.
//
// Every output is a sum along k in one fixed order: exact integer dots of a sub-block, folded into a float accumulator sub-block by
// sub-block, chunk by chunk. Neither the other rows, nor the other tokens, nor the tile they fall in change it.
#pragma once
#include "acts.h"
#include "formats/layout.h"
#include "tiles.h"
#include "whole.h"
#if defined(__ARM_FEATURE_MATMUL_INT8)
#include "isa/tile_i8mm.h"
#endif

namespace corral::CORRAL_ISA {

constexpr int kFloatColumns = 64;
constexpr int kChunksAhead = 1;
constexpr int kFetchesAnUnpack = 2;

// acc[t][r] over one chunk: `subs` sub-blocks of the panel against the activations of T tokens; added to the outputs.
template <class Kind, int R, int T>
CORRAL_INLINE void tile(const Panel<R>& panel, int subs, const ActBlock* x, Outputs<R> y, Ahead& ahead) {
    constexpr int kSub = Kind::kSub, kPerAct = kActGroup / kSub;
    F16 f[T][R];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) f[t][r] = fzero();
    for (int j = 0; j < subs; j++) {
        ahead.fetch();
        I16 a[T][R];
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) {
            I16 start = izero();
            if constexpr (Kind::kOffsetLog2 >= 0 && !Kind::kSigned) {
                const int32_t* sums = kSub == 32 ? x[t].minus_sum32 : x[t].minus_sum16;
                start = iset_shifted<Kind::kOffsetLog2 >= 0 ? Kind::kOffsetLog2 : 0>(sums + j);
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) a[t][r] = start;
        }
#pragma GCC unroll 8
        for (int k = 0; k < kSub / 4; k += Kind::kRun) dots<Kind>(panel, j * (kSub / 4) + k, x, a);
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) {
            const F16 d = fset(x[t].d[j / kPerAct]);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) f[t][r] = fma(to_float(a[t][r]) * fload(panel.s[j][r]), d, f[t][r]);
            if constexpr (Kind::kMinimum) {
                const F16 ds = fset(j % kPerAct == kPerAct - 1 ? x[t].ds[j / kPerAct] : x[t].ds_first[j / kPerAct]);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) f[t][r] = fnma(fload(panel.m[j][r]), ds, f[t][r]);
            }
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) y.add(t, r, f[t][r]);
}

// All tokens over the panel, which may be arranged anew for it.
template <class Kind, int R>
CORRAL_INLINE void all_tiles(Panel<R>& panel, int subs, const ActBlock* x, int tokens, Outputs<R> y, Ahead& ahead) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if (tokens >= kFewestPairedTokens) {
        ahead.fetch_rest();
        pair_rows(panel, subs * Kind::kSub);
        return pair_tiles<Kind, kTilePairs>(panel, subs, x, tokens, y);
    }
#endif
    even_tiles<kTileTokens>(0, tokens, [&]<int T>(int t) { tile<Kind, R, T>(panel, subs, x + t, y.from(t), ahead); });
}

// Tokens that share one unpacking. Tiles are so fast that unpacking shows: the outputs of more tokens are worth their way to L2.
template <class Format>
constexpr int kTokensAtOnce = kTiled && Whole<Format> ? 2 * kTokenBlock : kTokenBlock;
constexpr int kMostTokens = kTiled ? 2 * kTokenBlock : kTokenBlock;

template <int R>
struct QuantScratch {
    Panel<R> panel;
    alignas(64) float c[kMostTokens * R * 16];
    [[no_unique_address]] WholeScratch<R> whole;
};

// Copy a tile of outputs to its place, with the bias; the last group may have fewer than 16 rows.
template <int R>
CORRAL_INLINE void write_out(const LinearArgs& args, int group, int first_token, int tokens, const float* c) {
    const int rows = args.weight->rows;
    for (int r = 0; r < R; r++) {
        const int row = (group + r) * 16, count = rows - row < 16 ? rows - row : 16;
        const F16 bias = args.bias ? fload_some(args.bias + row, count) : fzero();
        for (int t = 0; t < tokens; t++) {
            F16 y = fload(c + (t * R + r) * 16);
            if (args.bias) y = y + bias;
            float* out = args.out + static_cast<size_t>(first_token + t) * args.out_stride + row;
            __builtin_prefetch(out + 8 * args.out_stride, 1);  // the rows are far apart
            if (count == 16)
                fstore(out, y);
            else
                fstore_some(out, y, count);
        }
    }
}

template <class Format, int R>
static void linear_panel(const LinearArgs& args, int group) {
    auto& scratch = *static_cast<QuantScratch<R>*>(args.scratch);
    const PackedMatrix& w = *args.weight;
    const int blocks = (args.tokens + kTokensAtOnce<Format> - 1) / kTokensAtOnce<Format>,
              even = blocks ? (args.tokens + blocks - 1) / blocks : 0;
    for (int t0 = 0; t0 < args.tokens; t0 += even) {
        const int tokens = args.tokens - t0 < even ? args.tokens - t0 : even;
        const uint8_t *begin = w.data + static_cast<size_t>(group) * w.group_bytes, *p = begin;
        const int chunks = (w.cols + kChunk - 1) / kChunk;
        const size_t stride = args.out_stride;
        const bool direct = !args.bias && (group + R) * 16 <= w.rows;
        float* to = args.out + static_cast<size_t>(t0) * stride + group * 16;
        for (int k0 = 0, chunk = 0; k0 < w.cols; k0 += kChunk, chunk++) {
            const int k = w.cols - k0 < kChunk ? w.cols - k0 : kChunk;
            // Behind the last chunk come the first of the next panel; whoever computes these, they are in a cache then. Weights that
            // went past some tokens already are still there.
            const int next = chunk + kChunksAhead, beyond = next / chunks;
            const uint8_t* wanted = begin + static_cast<size_t>(beyond * R) * w.group_bytes +
                                    static_cast<size_t>(next % chunks) * Format::chunk_bytes(kChunk);
            Ahead ahead(wanted, Format::chunk_bytes(k), t0 == 0 ? R : 0, w.group_bytes);
            ahead.spread(kFetchesAnUnpack * R + k / Format::kSub * ((tokens + kTileTokens - 1) / kTileTokens));
            // Whole groups go to their place with the last chunk; others need what write_out does.
            const bool first = chunk == 0, last = chunk + 1 == chunks && direct;
            const Outputs<R> y = {scratch.c, last ? to : scratch.c, last ? stride : static_cast<size_t>(R * 16), first};
            const size_t at = static_cast<size_t>(chunk) * args.act_stride + static_cast<size_t>(t0);
            const auto* x = static_cast<const ActOf<Format>*>(args.acts) + at;
            const auto unpack = [&](auto unpack_group) {
                for (int r = 0; r < R; r++) {
                    for (int i = 0; i < kFetchesAnUnpack; i++) ahead.fetch();
                    unpack_group(p + static_cast<size_t>(r) * w.group_bytes, r);
                }
            };
            if constexpr (Whole<Format>) {
                whole_chunk<Format>(scratch.panel, scratch.whole, unpack, x, tokens, y, ahead);
            } else {
                unpack([&](const uint8_t* q, int r) { Format::unpack(q, k, scratch.panel, r); });
                all_tiles<KindOf<Format>>(scratch.panel, k / Format::kSub, x, tokens, y, ahead);
            }
            p += Format::chunk_bytes(k);
        }
        if (!direct) write_out<R>(args, group, t0, tokens, scratch.c);
    }
}

template <class Format>
static void linear(const LinearArgs& args, int first_group, int last_group) {
#if defined(__AMX_INT8__)
    const Tiles tiles(Whole<Format> && args.tokens >= kFewestTiledTokens);
#endif
    int g = first_group;
    if constexpr (kTileGroups > 1)
        for (; g + kTileGroups <= last_group; g += kTileGroups) linear_panel<Format, kTileGroups>(args, g);
    for (; g < last_group; g++) linear_panel<Format, 1>(args, g);
}

// The float twin: w as float32 in L1, one fma a column.
struct FloatScratch {
    alignas(64) float w[kFloatColumns][16];
    alignas(64) float c[kTokenBlock * 16];
};

template <int T>
CORRAL_INLINE void float_tile(const float (*w)[16], int k, const float* x, size_t stride, float* c, bool first) {
    F16 f[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) f[t] = first ? fzero() : fload(c + t * 16);
    for (int i = 0; i < k; i++) {
        const F16 column = fload(w[i]);
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) f[t] = fma(column, fset(x[static_cast<size_t>(t) * stride + i]), f[t]);
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; t++) fstore(c + t * 16, f[t]);
}

template <int T>
static void float_tiles(const float (*w)[16], int k, const float* x, size_t stride, int tokens, float* c, bool first) {
    int t = 0;
    for (; t + T <= tokens; t += T) float_tile<T>(w, k, x + static_cast<size_t>(t) * stride, stride, c + t * 16, first);
    if constexpr (T > 1)
        if (t < tokens)
            float_tiles<T - 1>(w, k, x + static_cast<size_t>(t) * stride, stride, tokens - t, c + t * 16, first);
}

template <class Format>
static void linear_float(const LinearArgs& args, int first_group, int last_group) {
    auto& scratch = *static_cast<FloatScratch*>(args.scratch);
    const PackedMatrix& w = *args.weight;
    const size_t stride = args.x_stride;
    for (int g = first_group; g < last_group; g++)
        for (int t0 = 0; t0 < args.tokens; t0 += kTokenBlock) {
            const int tokens = args.tokens - t0 < kTokenBlock ? args.tokens - t0 : kTokenBlock;
            const uint8_t* p = w.data + static_cast<size_t>(g) * w.group_bytes;
            for (int k0 = 0; k0 < w.cols; k0 += kChunk) {
                const int chunk = w.cols - k0 < kChunk ? w.cols - k0 : kChunk;
                for (int c0 = 0; c0 < chunk; c0 += kFloatColumns) {
                    const int k = chunk - c0 < kFloatColumns ? chunk - c0 : kFloatColumns;
                    for (int i = 0; i < k; i++) {
                        const uint8_t* column = p + static_cast<size_t>((c0 + i) * 16 * Format::kBlockBytes);
                        prefetch(column);
                        fstore(scratch.w[i], Format::load(column));
                    }
                    const float* x = args.x + static_cast<size_t>(t0) * stride + k0 + c0;
                    float_tiles<kFloatTileTokens>(scratch.w, k, x, stride, tokens, scratch.c, k0 + c0 == 0);
                }
                p += Format::chunk_bytes(chunk);
            }
            write_out<1>(args, g, t0, tokens, scratch.c);
        }
}

template <class Format>
static void dequantize_row(const uint8_t* row, int n, float* out) {
    for (int k = 0; k < n; k += Format::kBlockWeights, row += Format::kBlockBytes) Format::dequantize(row, out + k);
}

}  // namespace corral::CORRAL_ISA
