// Formats whose sub-blocks have integer scales: which they are in this variant, and all tokens over a chunk of them.
#pragma once
#include <type_traits>

#include "acts.h"
#include "tiles.h"
#if defined(__AMX_INT8__)
#include "isa/tile_amx.h"
#elif defined(CORRAL_WHOLE_CHUNKS)
#include "isa/whole_vnni.h"
#endif

namespace corral::CORRAL_ISA {

#if defined(__AMX_INT8__)
constexpr bool kTiled = true;
#else
constexpr bool kTiled = false;
#endif

#if defined(CORRAL_WHOLE_CHUNKS)
// Weights times their integer scales are bytes
template <class Format>
concept Scaled = requires { Format::kScaledOffset; };
// One sum for a chunk is worth one scale for its activations
template <class Format>
concept Whole = (kTiled || Scaled<Format>) && requires(const uint8_t* p, Panel<1>& panel, WholeScales<1>& scales) {
    Format::unpack_whole(p, panel, scales, 0);
};
template <class Format>
using ActOf = std::conditional_t<Whole<Format>, WholeBlock, ActBlock>;

constexpr int kFewestScaledTokens = 3;  // below, scales cost less with the sums than with the weights

template <int R>
struct WholeScratch {
    WholeScales<R> scales;
#if defined(__AMX_INT8__)
    TileScratch tiles;
#endif
};

// All tokens over R groups of rows.
template <class Kind, int R>
CORRAL_INLINE void all_whole(const Panel<R>& panel, WholeScratch<R>& scratch, const WholeBlock* x, int tokens,
                             Outputs<R> y, Ahead& ahead) {
#if defined(__AMX_INT8__)
    if (tokens >= kFewestTiledTokens) {
        ahead.fetch_rest();
        for (int r = 0; r < R; r++) whole_tiles<Kind>(panel, scratch.scales, r, scratch.tiles, x, tokens, y);
        return;
    }
#endif
    even_tiles<kTileTokens>(
        0, tokens, [&]<int T>(int t) { whole_dots<Kind, R, T>(panel, scratch.scales, x + t, y.from(t), ahead); });
}

// R groups of rows, each unpacked by a function that `unpack` is given, and all tokens over them.
template <class Format, int R, class Unpack>
CORRAL_INLINE void whole_chunk(Panel<R>& panel, WholeScratch<R>& scratch, const Unpack& unpack, const WholeBlock* x,
                               int tokens, Outputs<R> y, Ahead& ahead) {
    if constexpr (Scaled<Format>)
        if (tokens >= kFewestScaledTokens) {
            unpack([&](const uint8_t* p, int r) { Format::unpack_scaled(p, panel, scratch.scales, r); });
            return all_whole<ScaledKindOf<Format>>(panel, scratch, x, tokens, y, ahead);
        }
    unpack([&](const uint8_t* p, int r) { Format::unpack_whole(p, panel, scratch.scales, r); });
    all_whole<KindOf<Format>>(panel, scratch, x, tokens, y, ahead);
}
#else
template <class Format>
concept Whole = false;
template <class Format>
using ActOf = ActBlock;
template <int R>
struct WholeScratch {};
#endif

}  // namespace corral::CORRAL_ISA
