// The native executor: a Program as stages, run by a team of threads.
//
// A stage is a run of row ops (each row of each op depends on the same row only, so a thread takes rows through the whole run), a
// linear, or an attention. It is cut into pieces that threads claim; who does what never changes a result.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace corral {

// Anonymous memory, zeroed, 64-byte aligned, in huge pages where the system gives them.
class Memory {
   public:
    Memory() = default;
    explicit Memory(size_t bytes);
    ~Memory();
    Memory(Memory&& other) noexcept;
    Memory& operator=(Memory&& other) noexcept;

    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }
    size_t size() const { return bytes_; }

   private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

// See corral/program/batch.py.
struct Batch {
    const int32_t *tokens, *positions, *query_start, *context_len, *block_tables, *logit_rows;
    int token_count, sequence_count, table_width, logit_count;
};

enum class Rows { kTokens, kLogits };
enum class IndexedBy { kToken, kPosition, kNothing };  // what chooses the row of an embedding table

struct Buffer {
    Rows rows;
    int cols, slot;
};

// Row ops. Members are buffer, weight and vector ids unless they are numbers.
struct EmbedOp {
    int out, table;
    float scale;
};
struct NormOp {
    int out, x, weight;
    float eps;
};
struct LayerNormOp {
    int out, x, weight, bias;  // bias: -1 for none
    float eps;
};
struct RopeTableOp {
    int out;
    std::vector<double> inv_freq;
    float magnitude;
};
struct RopeOp {
    int out, x, table, head_dim;
    bool interleaved;
};
struct AddOp {
    int out, a, b;
};
struct ScaleOp {
    int out, x;
    float factor;
};
struct GluOp {
    int out, gate, up;
    bool gelu;
};
struct ActivateOp {
    int out, x;
    bool gelu;
};
struct SoftCapOp {
    int out, x;
    float cap;
};
struct TakeRowsOp {
    int out, x;
};
struct QuantizeOp {
    int x, acts;
};
struct StoreKvOp {
    int k, v, layer;
};
using RowOp = std::variant<EmbedOp, NormOp, LayerNormOp, RopeTableOp, RopeOp, AddOp, ScaleOp, GluOp, ActivateOp,
                           SoftCapOp, TakeRowsOp, QuantizeOp, StoreKvOp>;

struct RowStage {
    Rows rows;
    std::vector<RowOp> ops;
};
struct LinearStage {
    Rows rows;
    int x;
    std::vector<int> acts, weights, biases,
        outs;  // of each weight; acts: -1 if it takes floats, biases: vector ids or -1
};
struct AttentionStage {
    int q, out, layer, heads;
    float scale, softcap;
    int window;
    bool causal;
    int slopes;  // vector id or -1
};
using Stage = std::variant<RowStage, LinearStage, AttentionStage>;

const KernelTable* find_isa(const std::string& name);  // "auto" is the best; throws std::invalid_argument

class Program {
   public:
    // isa: a name from available_isas(). Throws std::invalid_argument for others.
    Program(const std::string& isa, int threads);

    // Weights that are multiplied with: the shapes of all of them, then memory for them all, then their rows.
    int add_matrix(int type, int rows, int cols);
    void allocate_weights();                // to be packed into, or ...
    void use_weights(const uint8_t* data);  // ... packed_bytes() that were packed before; they must stay where they are
    // Rows [first, first + count) of a matrix from the file's layout, with all threads. `first` is a multiple of 16, and so is
    // `count` unless they are the last.
    void pack_rows(int matrix, int first, int count, const uint8_t* data);

    // keeps the pointer, dequantizes rows as needed
    int add_table(int type, int rows, int cols, const uint8_t* data, IndexedBy by);
    int add_vector(const float* data, int size);  // copies
    int add_kv_layer(int kv_heads, int head_dim, CacheType keys, CacheType values);
    int add_buffer(Rows rows, int cols, int slot);
    int add_acts(Rows rows, int cols, int slot, int group);

    void add_row_op(Rows rows, RowOp op);  // joins the run of row ops before it, if that has the same rows
    void add_stage(Stage stage);

    // After the last stage: `logits` is the buffer to give back; at most `tokens` and `logit_rows` a step.
    void finish(int logits, int tokens, int logit_rows);
    void allocate_blocks(int blocks);

    // Run every stage; the result is [logit_count, V] and stays until the next step.
    const float* step(const Batch& batch);

    // token ids, or positions, below this are in every table that they choose the row of
    int rows_indexed(IndexedBy by) const {
        int least = 1 << 30;
        for (const Table& table : tables_) least = table.by == by && table.rows < least ? table.rows : least;
        return least;
    }
    int vocab_size() const { return buffers_[static_cast<size_t>(logits_)].cols; }
    size_t packed_bytes() const { return packed_bytes_; }
    const uint8_t* packed_weights() const { return weights_; }
    size_t file_bytes(int matrix, int rows) const;  // that so many rows take
    size_t buffer_bytes() const;
    size_t kv_bytes() const { return kv_.size(); }
    size_t kv_block_bytes() const { return kv_block_; }
    uint8_t* block_data(int block) { return kv_.as<uint8_t>() + static_cast<size_t>(block) * kv_block_; }
    int most_tokens() const { return most_tokens_; }
    int most_logit_rows() const { return most_logits_; }
    int block_count() const { return blocks_; }
    const char* isa() const { return kernels_->name; }
    int threads() const { return team_.size(); }

   private:
    struct Matrix {
        PackedMatrix packed;
        const FormatKernels* format;
        size_t offset;  // of its packed rows in the weights
    };
    struct Table {
        const FormatKernels* format;
        int rows, cols;
        size_t row_bytes;
        const uint8_t* data;
        IndexedBy by;
    };
    struct KvLayer {
        int kv_heads, head_dim;
        CacheType key_type, value_type;
        size_t keys, values;  // where they begin in a block
    };
    struct Acts {
        Rows rows;
        int cols, slot;
        const ActKernels* kernels;
    };
    // A part of an attention stage: new tokens [first_token, last_token) of a sequence, heads [first_head, last_head).
    struct AttentionItem {
        int sequence, first_token, last_token, first_head, last_head;
    };

    const FormatKernels* format(int type) const;
    int rows_of(Rows rows, const Batch& batch) const;
    static size_t row_stride(const Buffer& buffer);  // floats from a row to the next
    float* row(int buffer, int index) const;
    size_t act_stride(Rows rows) const;
    uint8_t* acts(int id, int row) const;

    void plan(const Batch& batch);
    void run_row(const RowOp& op, const Batch& batch, int row);
    void run_linear(const LinearStage& stage, const Batch& batch, int piece, int size, void* scratch);
    int tokens_at_once(const LinearStage& stage, int tokens) const;
    void run_attention(const AttentionStage& stage, const Batch& batch, int piece, void* scratch);
    const std::vector<AttentionItem>& attention_items(const AttentionStage& stage, const Batch& batch);
    int groups(int matrix) const;
    const Matrix& matrix(int id) const;
    void place_weights(const uint8_t* data);
    CachePart keys(const KvLayer& layer, int block) const {
        return {layer.key_type, kv_.as<uint8_t>() + static_cast<size_t>(block) * kv_block_ + layer.keys};
    }
    CachePart values(const KvLayer& layer, int block) const {
        return {layer.value_type, kv_.as<uint8_t>() + static_cast<size_t>(block) * kv_block_ + layer.values};
    }

    const KernelTable* kernels_;
    Team team_;
    std::vector<Matrix> matrices_;
    std::vector<Table> tables_;
    std::vector<std::vector<float>> vectors_;
    std::vector<KvLayer> kv_layers_;
    std::vector<Buffer> buffers_;
    std::vector<Acts> acts_;
    std::vector<Stage> stages_;
    std::vector<Memory> slots_, act_slots_, scratch_;
    Memory kv_;            // block after block, each with all layers: what is used lies together
    size_t kv_block_ = 0;  // bytes of a block
    Memory weights_memory_;
    const uint8_t* weights_ = nullptr;  // packed, matrix after matrix
    size_t packed_bytes_ = 0;
    int logits_ = -1, most_tokens_ = 0, most_logits_ = 0, blocks_ = 0;

    // The plan of the current step: each stage's number of pieces, and rows (or groups of rows) of a piece.
    std::vector<int> pieces_, piece_rows_;
    struct AttentionPlan {
        int heads, kv_heads;
        std::vector<AttentionItem> items;
    };
    std::vector<AttentionPlan> attention_plans_;
};

struct Limits {
    double dots;   // int8 multiply-adds a second
    double bytes;  // read from memory a second
};
// What `threads` threads with this ISA variant reach, best of some tries; reads `bytes` of memory that it allocates.
Limits measure_limits(const std::string& isa, int threads, size_t bytes);

const std::vector<const KernelTable*>& available_isas();  // what this CPU can run, best first

}  // namespace corral
