// Compiled once for each ISA variant, with CORRAL_ISA its name and the compiler flags to match.
#include "kernels.h"

#if defined(CORRAL_SCALAR)
#include "isa/vec_scalar.h"
#elif defined(__AVX512F__)
#include "isa/vec_avx512.h"
#elif defined(__AVX2__)
#include "isa/vec_avx2.h"
#elif defined(__ARM_NEON)
#include "isa/vec_neon.h"
#endif

#include "acts.h"
#include "attention.h"
#include "elementwise.h"
#include "formats/floats.h"
#include "formats/iq1_m.h"
#include "formats/iq1_s.h"
#include "formats/iq2_s.h"
#include "formats/iq2_xs.h"
#include "formats/iq2_xxs.h"
#include "formats/iq3_s.h"
#include "formats/iq3_xxs.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/tq1_0.h"
#include "formats/tq2_0.h"
#include "logits.h"
#include "matmul.h"
#include "peak.h"

namespace corral::CORRAL_ISA {

template <class F>
constexpr FormatKernels quantized() {
    return {F::kType,       F::kBlockWeights, F::kBlockBytes,    Whole<F> ? kChunk : kActGroup,
            F::chunk_bytes, F::pack,          dequantize_row<F>, linear<F>};
}
template <class F>
constexpr FormatKernels plain() {
    return {F::kType, F::kBlockWeights, F::kBlockBytes, 0, F::chunk_bytes, F::pack, dequantize_row<F>, linear_float<F>};
}

static const FormatKernels kFormats[] = {
#define PLAIN(name) plain<name>(),
#define QUANTIZED(name) quantized<name>(),
#include "formats/formats.def"
};

static const ActKernels kActs[] = {
    {kActGroup, sizeof(ActBlock), quantize_groups},
#if defined(CORRAL_WHOLE_CHUNKS)
    {kChunk, sizeof(WholeBlock), quantize_chunks},
#endif
};

static_assert(sizeof(FloatScratch) <= sizeof(AttentionScratch));
constexpr size_t kScratch = sizeof(QuantScratch<kTileGroups>) > sizeof(AttentionScratch)
                                ? sizeof(QuantScratch<kTileGroups>)
                                : sizeof(AttentionScratch);

#define CORRAL_TEXT(word) CORRAL_WORDS(word)
#define CORRAL_WORDS(word) #word
constexpr const char* kIsaName = CORRAL_TEXT(CORRAL_ISA);

extern const KernelTable kTable = {
    kIsaName,      kFormats,       sizeof kFormats / sizeof kFormats[0],
    kScratch,      kActs,          sizeof kActs / sizeof kActs[0],
    rms_norm_row,  layer_norm_row, rope_row,
    add_row,       scale_row,      silu_mul_row,
    gelu_mul_row,  silu_row,       gelu_row,
    softcap_row,   store_kv,       attend,
    scan_logits,   mask_logits,    exp_sum_logits,
    moment_logits, peak_dots,      read_stream,
};

}  // namespace corral::CORRAL_ISA
