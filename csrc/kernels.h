// What one ISA variant offers: a table of functions, the same for all variants. No state, no threads.
//
// Shapes: T tokens, K = I columns in, N = O rows out, H query heads, Hkv key heads, Dh head size, B tokens a KV block.
#pragma once
#include <cstddef>
#include <cstdint>

namespace corral {

constexpr int kChunk = 256;       // weights of a row that are unpacked at a time
constexpr int kGroup = 16;        // rows interleaved in the packed layout
constexpr int kActGroup = 32;     // activations that share a scale
constexpr int kActPadding = 16;   // blocks of activations
constexpr int kTokenBlock = 128;  // tokens that share one unpacking of weights: their outputs stay in L1 with it
constexpr int kBlockTokens = 32;  // B
constexpr int kLogitBlock = 64;   // logits of which the sampler keeps the largest

// A weight matrix [rows, cols] in the packed layout: groups of 16 rows, each a run of chunks of up to 256 columns.
struct PackedMatrix {
    int rows, cols;
    size_t group_bytes;
    const uint8_t* data;
};

struct LinearArgs {
    const PackedMatrix* weight;
    const void* acts;  // [chunks][act_stride] blocks of 256 activations, for quantized formats: see acts.h
    size_t act_stride;
    const float* x;   // [T, cols], for float formats
    size_t x_stride;  // floats from a row to the next
    int tokens;
    const float* bias;  // [rows] or null
    float* out;         // [T, rows]
    size_t out_stride;
    void* scratch;  // kScratchBytes
};

struct FormatKernels {
    int type;           // ggml id
    int block_weights;  // of the file's layout
    int block_bytes;
    int act_group;                 // takes int8 activations, so many of which share a scale; 0: takes floats
    size_t (*chunk_bytes)(int k);  // packed bytes of a chunk of k columns of 16 rows
    void (*pack)(const uint8_t* const* rows, int k, uint8_t* out);  // 16 row pointers; a null row is zeros
    void (*dequantize)(const uint8_t* row, int n, float* out);      // n columns of a row as it is in the file
    void (*linear)(const LinearArgs&, int first_group, int last_group);
};

// Activations as formats take them that say `group`, in blocks of 256: see acts.h. Up to kActPadding blocks are read behind the last.
struct ActKernels {
    int group;
    size_t bytes;                                                       // of a block
    void (*quantize)(const float* x, int n, void* out, size_t stride);  // chunks are `stride` blocks apart
};

constexpr int kMostAttentionRows = 64;  // (last_token - first_token) * (last_head - first_head)
constexpr int kMostHeadDim = 512;
constexpr int padded_head_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// How the KV cache keeps numbers. Q8_0: int8, and a float16 scale for 32 numbers of a head.
enum class CacheType { kF32, kF16, kQ8_0 };
constexpr int kCacheTypes = 3;
constexpr int kCacheGroup = 32;
constexpr int cache_groups(int dim) { return (dim + kCacheGroup - 1) / kCacheGroup; }

// Bytes of one head of a block. Keys lie as [Dh][B] numbers, then, of Q8_0, [groups][B] scales; values as [B][padded Dh] and
// [B][groups].
constexpr size_t cache_bytes(CacheType type, int dim) {
    const size_t numbers = static_cast<size_t>(dim) * kBlockTokens;
    const size_t scales = static_cast<size_t>(cache_groups(dim)) * kBlockTokens;
    return type == CacheType::kF32 ? 4 * numbers : type == CacheType::kF16 ? 2 * numbers : numbers + 2 * scales;
}
constexpr size_t key_bytes(CacheType type, int head_dim) { return cache_bytes(type, head_dim); }
constexpr size_t value_bytes(CacheType type, int head_dim) { return cache_bytes(type, padded_head_dim(head_dim)); }

// The keys or the values of one layer.
struct CachePart {
    CacheType type;
    uint8_t* data;  // of a block: head after head
};

struct AttentionArgs {
    const float* q;          // [T, H * Dh]
    float* out;              // [T, H * Dh]
    size_t row_stride;       // floats from a row of these to the next
    CachePart keys, values;  // of block 0
    size_t block_stride;     // bytes from a block to the next
    const int32_t* block_table;
    int context;     // tokens of the sequence in the cache
    int first_row;   // row of q of the sequence's first new token
    int new_tokens;  // rows of the sequence in this step
    int heads, kv_heads, head_dim;
    float scale, softcap;
    int window;
    bool both_ways;       // a token sees the tokens after it too: all `context`
    const float* slopes;  // [H] or null: a score is less by slope * distance
    void* scratch;
};

struct KernelTable {
    const char* name;
    const FormatKernels* formats;
    int format_count;
    size_t scratch_bytes;
    const ActKernels* acts;
    int act_count;
    void (*rms_norm)(const float* x, const float* weight, int n, int run, float eps, float* out);
    void (*layer_norm)(const float* x, const float* weight, const float* bias, int n, float eps, float* out);
    void (*rope)(const float* x, const float* table, int n, int head_dim, int rotated, bool interleaved, float* out);
    void (*add)(const float* a, const float* b, int n, float* out);
    void (*scale)(const float* x, float factor, int n, float* out);
    void (*silu_mul)(const float* gate, const float* up, int n, float* out);
    void (*gelu_mul)(const float* gate, const float* up, int n, float* out);
    void (*silu)(const float* x, int n, float* out);
    void (*gelu)(const float* x, int n, float* out);
    void (*softcap)(const float* x, float cap, int n, float* out);
    // one token's k and v [Hkv * Dh] into place `place` of its block
    void (*store_kv)(const float* k, const float* v, int kv_heads, int head_dim, int place, CachePart keys,
                     CachePart values);
    // rows [first_token, last_token) of the sequence's new tokens, heads [first_head, last_head) of one key head
    void (*attend)(const AttentionArgs&, int first_token, int last_token, int first_head, int last_head);
    // passes over a row of logits: see logits.h
    bool (*scan_logits)(const float* row, int n, float* maxima);
    void (*mask_logits)(const float* row, const uint32_t* allowed, int n, float* out, float* maxima);
    double (*exp_sum_logits)(const float* row, int n, float largest, float scale, double* weighted);
    double (*moment_logits)(const float* row, int n, float shift, int power, int64_t* count);
    // the limits of one thread: see peak.h
    int64_t (*peak_dots)(int64_t rounds);
    void (*read_stream)(const uint8_t* p, size_t n);
};

}  // namespace corral
