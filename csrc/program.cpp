#include "program.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>

namespace corral {

namespace {

[[maybe_unused]] constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kRowsAtATime = 8;
constexpr int kPackedAtATime = 4;                 // groups of rows
constexpr size_t kTokensBytes = size_t{1} << 20;  // of activations that stay in L2 while weights stream past
constexpr int kPiecesPerThread = 8;               // of a linear: enough to even out threads of different speed

size_t index(int i) { return static_cast<size_t>(i); }
int chunks(int cols) { return (cols + kChunk - 1) / kChunk; }

int pieces(int total, int size) { return (total + size - 1) / size; }

size_t whole_pages(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
// From the heap and to the byte: what reads or writes beyond it is caught.
Memory::Memory(size_t bytes) : bytes_(bytes) {
    if (!bytes) return;
    data_ = operator new(bytes, std::align_val_t(64), std::nothrow);  // the throwing one ends the program instead
    if (!data_) throw std::bad_alloc();
    memset(data_, 0, bytes);
}

Memory::~Memory() { operator delete(data_, std::align_val_t(64)); }
#else
Memory::Memory(size_t bytes) {
    if (!bytes) return;
    bytes_ = whole_pages(bytes);
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) {
        data_ = nullptr;
        throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    if (bytes_ >= kHugePage) madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
}

Memory::~Memory() {
    if (data_) munmap(data_, bytes_);
}
#endif

Memory::Memory(Memory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }

Memory& Memory::operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

const KernelTable* find_isa(const std::string& name) {
    for (const KernelTable* table : available_isas())
        if (name == "auto" || name == table->name) return table;
    throw std::invalid_argument("this CPU can't run the ISA variant '" + name + "'");
}

Limits measure_limits(const std::string& isa, int threads, size_t bytes) {
    const KernelTable* kernels = find_isa(isa);
    constexpr int kTries = 5, kPieces = 64;
    constexpr int64_t kRounds = 400'000;
    Team team(threads);
    const size_t piece = bytes / kPieces / 256 * 256;
    Memory memory(piece * kPieces);
    memset(memory.as<uint8_t>(), 1, memory.size());
    auto seconds = [](auto&& run) {
        const auto start = std::chrono::steady_clock::now();
        run();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    Limits best{0, 0};
    for (int i = 0; i < kTries; i++) {
        std::atomic<int64_t> dots{0};
        const double compute =
            seconds([&] { team.run({team.size() * 4}, [&](int, int, int) { dots += kernels->peak_dots(kRounds); }); });
        const double read = seconds([&] {
            team.run({kPieces},
                     [&](int, int p, int) { kernels->read_stream(memory.as<uint8_t>() + index(p) * piece, piece); });
        });
        best.dots = std::max(best.dots, static_cast<double>(dots) / compute);
        best.bytes = std::max(best.bytes, static_cast<double>(piece * kPieces) / read);
    }
    return best;
}

Program::Program(const std::string& isa, int threads) : kernels_(find_isa(isa)), team_(threads) {
    for (int i = 0; i < team_.size(); i++) scratch_.emplace_back(kernels_->scratch_bytes);
}

const FormatKernels* Program::format(int type) const {
    for (int i = 0; i < kernels_->format_count; i++)
        if (kernels_->formats[i].type == type) return &kernels_->formats[i];
    throw std::invalid_argument("no kernel for tensor type " + std::to_string(type));
}

int Program::add_matrix(int type, int rows, int cols) {
    if (weights_) throw std::logic_error("a matrix after the memory for all of them");
    const FormatKernels* f = format(type);
    size_t group_bytes = 0;
    for (int k = 0; k < cols; k += kChunk) group_bytes += f->chunk_bytes(std::min(kChunk, cols - k));
    matrices_.push_back({{rows, cols, group_bytes, nullptr}, f, packed_bytes_});
    packed_bytes_ += whole_pages(group_bytes * index(pieces(rows, kGroup)));
    return static_cast<int>(matrices_.size()) - 1;
}

void Program::allocate_weights() {
    weights_memory_ = Memory(packed_bytes_);
    place_weights(weights_memory_.as<uint8_t>());
}

void Program::use_weights(const uint8_t* data) {
    place_weights(data);
    weights_memory_ = Memory();
}

void Program::place_weights(const uint8_t* data) {
    weights_ = data;
    for (Matrix& m : matrices_) m.packed.data = data + m.offset;
}

const Program::Matrix& Program::matrix(int id) const {
    if (id < 0 || index(id) >= matrices_.size()) throw std::invalid_argument("no matrix " + std::to_string(id));
    return matrices_[index(id)];
}

size_t Program::file_bytes(int id, int rows) const {
    const Matrix& m = matrix(id);
    return index(rows) * index(m.packed.cols / m.format->block_weights) * index(m.format->block_bytes);
}

void Program::pack_rows(int id, int first_row, int count, const uint8_t* data) {
    const Matrix& m = matrix(id);
    const FormatKernels* f = m.format;
    const int cols = m.packed.cols;
    const bool last_rows = first_row + count == m.packed.rows;
    if (first_row < 0 || count < 0 || count > m.packed.rows - first_row || first_row % kGroup ||
        (count % kGroup && !last_rows))
        throw std::invalid_argument("rows " + std::to_string(first_row) + " and " + std::to_string(count) +
                                    " more: expected whole groups of 16");
    if (!weights_memory_.size()) throw std::logic_error("no memory to pack into");
    const size_t row_bytes = file_bytes(id, 1);
    const int groups = pieces(count, kGroup);
    uint8_t* packed = weights_memory_.as<uint8_t>() + m.offset + index(first_row / kGroup) * m.packed.group_bytes;
    team_.run({pieces(groups, kPackedAtATime)}, [&](int, int piece, int) {
        const int first = piece * kPackedAtATime, last = std::min(first + kPackedAtATime, groups);
        uint8_t* out = packed + index(first) * m.packed.group_bytes;
        for (int g = first; g < last; g++)
            for (int k = 0; k < cols; k += kChunk) {
                const uint8_t* file_rows[kGroup];
                const int width = std::min(kChunk, cols - k);
                for (int r = 0; r < kGroup; r++) {
                    const int row = g * kGroup + r;
                    const size_t at = index(row) * row_bytes + index(k / f->block_weights * f->block_bytes);
                    file_rows[r] = row < count ? data + at : nullptr;
                }
                f->pack(file_rows, width, out);
                out += f->chunk_bytes(width);
            }
    });
}

int Program::add_table(int type, int rows, int cols, const uint8_t* data, IndexedBy by) {
    const FormatKernels* f = format(type);
    tables_.push_back({f, rows, cols, index(cols / f->block_weights * f->block_bytes), data, by});
    return static_cast<int>(tables_.size()) - 1;
}

int Program::add_vector(const float* data, int size) {
    vectors_.emplace_back(data, data + size);
    return static_cast<int>(vectors_.size()) - 1;
}

int Program::add_kv_layer(int kv_heads, int head_dim, CacheType keys, CacheType values) {
    if (head_dim > kMostHeadDim)
        throw std::invalid_argument("heads of " + std::to_string(head_dim) + " numbers: at most " +
                                    std::to_string(kMostHeadDim) + " can be run");
    const size_t first_value = kv_block_ + index(kv_heads) * key_bytes(keys, head_dim);
    kv_layers_.push_back({kv_heads, head_dim, keys, values, kv_block_, first_value});
    kv_block_ = first_value + index(kv_heads) * value_bytes(values, head_dim);
    return static_cast<int>(kv_layers_.size()) - 1;
}

int Program::add_buffer(Rows rows, int cols, int slot) {
    buffers_.push_back({rows, cols, slot});
    return static_cast<int>(buffers_.size()) - 1;
}

int Program::add_acts(Rows rows, int cols, int slot, int group) {
    for (int i = 0; i < kernels_->act_count; i++) {
        if (kernels_->acts[i].group != group) continue;
        acts_.push_back({rows, cols, slot, &kernels_->acts[i]});
        return static_cast<int>(acts_.size()) - 1;
    }
    throw std::invalid_argument("no activations in groups of " + std::to_string(group));
}

void Program::add_row_op(Rows rows, RowOp op) {
    if (!stages_.empty())
        if (auto* run = std::get_if<RowStage>(&stages_.back()); run && run->rows == rows) {
            run->ops.push_back(std::move(op));
            return;
        }
    stages_.push_back(RowStage{rows, {std::move(op)}});
}

void Program::add_stage(Stage stage) { stages_.push_back(std::move(stage)); }

void Program::finish(int logits, int tokens, int logit_rows) {
    if (!matrices_.empty() && !weights_) throw std::logic_error("no memory for the weights");
    logits_ = logits, most_tokens_ = tokens, most_logits_ = logit_rows;
    std::vector<size_t> slot_bytes, act_bytes;
    auto need = [](std::vector<size_t>& sizes, int slot, size_t bytes) {
        if (sizes.size() <= index(slot)) sizes.resize(index(slot) + 1, 0);
        sizes[index(slot)] = std::max(sizes[index(slot)], bytes);
    };
    for (const Buffer& b : buffers_) {
        const int rows = b.rows == Rows::kTokens ? tokens : logit_rows;
        need(slot_bytes, b.slot, sizeof(float) * index(rows) * row_stride(b) + 64);
    }
    for (const Acts& a : acts_)
        need(act_bytes, a.slot, a.kernels->bytes * (act_stride(a.rows) * index(chunks(a.cols)) + kActPadding));
    for (size_t bytes : slot_bytes) slots_.emplace_back(bytes);
    for (size_t bytes : act_bytes) act_slots_.emplace_back(bytes);
    pieces_.resize(stages_.size());
    piece_rows_.resize(stages_.size());
}

void Program::allocate_blocks(int blocks) {
    kv_ = Memory();  // free the old pool before the new one is taken
    blocks_ = 0;     // and should there be no memory for it, no block is in the pool
    kv_ = Memory(kv_block_ * index(blocks));
    blocks_ = blocks;
}

size_t Program::buffer_bytes() const {
    size_t total = 0;
    for (const auto* memories : {&slots_, &act_slots_, &scratch_})
        for (const Memory& memory : *memories) total += memory.size();
    return total;
}

int Program::rows_of(Rows rows, const Batch& batch) const {
    return rows == Rows::kTokens ? batch.token_count : batch.logit_count;
}

// Rows of tokens are whole lines, an odd number of them: if they were a power of two apart, as widths often are, the rows that a tile
// writes would all fall in the same few sets of the caches. Rows of logits are read from outside, and lie one after the other.
size_t Program::row_stride(const Buffer& b) {
    constexpr int kLine = 64 / sizeof(float);
    return b.rows == Rows::kTokens ? index(pieces(b.cols, kLine) | 1) * kLine : index(b.cols);
}

float* Program::row(int buffer, int i) const {
    const Buffer& b = buffers_[index(buffer)];
    return slots_[index(b.slot)].as<float>() + index(i) * row_stride(b);
}

size_t Program::act_stride(Rows rows) const { return index(rows == Rows::kTokens ? most_tokens_ : most_logits_); }

uint8_t* Program::acts(int id, int row) const {
    const Acts& a = acts_[index(id)];
    return act_slots_[index(a.slot)].as<uint8_t>() + a.kernels->bytes * index(row);
}

const float* Program::step(const Batch& batch) {
    plan(batch);
    team_.run(pieces_, [&](int i, int piece, int thread) {
        const Stage& stage = stages_[index(i)];
        const int first = piece * piece_rows_[index(i)], last = first + piece_rows_[index(i)];
        void* scratch = scratch_[index(thread)].as<void>();
        if (const auto* rows = std::get_if<RowStage>(&stage)) {
            for (int r = first; r < std::min(last, rows_of(rows->rows, batch)); r++)
                for (const RowOp& op : rows->ops) run_row(op, batch, r);
        } else if (const auto* linear = std::get_if<LinearStage>(&stage)) {
            run_linear(*linear, batch, piece, piece_rows_[index(i)], scratch);
        } else {
            run_attention(std::get<AttentionStage>(stage), batch, piece, scratch);
        }
    });
    return row(logits_, 0);
}

// Cut every stage into pieces for this batch.
void Program::plan(const Batch& batch) {
    attention_plans_.clear();
    for (size_t i = 0; i < stages_.size(); i++) {
        int total = 0, size = 1;
        if (const auto* rows = std::get_if<RowStage>(&stages_[i])) {
            total = rows_of(rows->rows, batch);
            size = std::clamp(total / (team_.size() * 2), 1, kRowsAtATime);
        } else if (const auto* linear = std::get_if<LinearStage>(&stages_[i])) {
            for (int w : linear->weights) total += groups(w);
            size = std::max(2, total / (team_.size() * kPiecesPerThread) / 2 * 2);
            const int tokens = rows_of(linear->rows, batch);
            pieces_[i] = tokens ? pieces(total, size) * pieces(tokens, tokens_at_once(*linear, tokens)) : 0;
            piece_rows_[i] = size;
            continue;
        } else {
            total = static_cast<int>(attention_items(std::get<AttentionStage>(stages_[i]), batch).size());
        }
        pieces_[i] = pieces(total, size);
        piece_rows_[i] = size;
    }
}

void Program::run_row(const RowOp& any, const Batch& batch, int r) {
    auto cols = [&](int buffer) { return buffers_[index(buffer)].cols; };
    if (const auto* op = std::get_if<QuantizeOp>(&any)) {
        const Acts& a = acts_[index(op->acts)];
        a.kernels->quantize(row(op->x, r), cols(op->x), acts(op->acts, r), act_stride(a.rows));
    } else if (const auto* op = std::get_if<NormOp>(&any)) {
        const std::vector<float>& weight = vectors_[index(op->weight)];
        const int run = static_cast<int>(weight.size());
        kernels_->rms_norm(row(op->x, r), weight.data(), cols(op->x), run, op->eps, row(op->out, r));
    } else if (const auto* op = std::get_if<LayerNormOp>(&any)) {
        const float* bias = op->bias < 0 ? nullptr : vectors_[index(op->bias)].data();
        const float* weight = vectors_[index(op->weight)].data();
        kernels_->layer_norm(row(op->x, r), weight, bias, cols(op->x), op->eps, row(op->out, r));
    } else if (const auto* op = std::get_if<AddOp>(&any)) {
        kernels_->add(row(op->a, r), row(op->b, r), cols(op->out), row(op->out, r));
    } else if (const auto* op = std::get_if<RopeOp>(&any)) {
        kernels_->rope(row(op->x, r), row(op->table, r), cols(op->x), op->head_dim, cols(op->table), op->interleaved,
                       row(op->out, r));
    } else if (const auto* op = std::get_if<StoreKvOp>(&any)) {
        const KvLayer& layer = kv_layers_[index(op->layer)];
        const int position = batch.positions[r];
        const int32_t* last = batch.query_start + batch.sequence_count + 1;
        const auto sequence = std::upper_bound(batch.query_start, last, r) - batch.query_start - 1;
        const int32_t* table = batch.block_tables + sequence * batch.table_width;
        const int block = table[position / kBlockTokens];
        kernels_->store_kv(row(op->k, r), row(op->v, r), layer.kv_heads, layer.head_dim, position % kBlockTokens,
                           keys(layer, block), values(layer, block));
    } else if (const auto* op = std::get_if<GluOp>(&any)) {
        (op->gelu ? kernels_->gelu_mul : kernels_->silu_mul)(row(op->gate, r), row(op->up, r), cols(op->out),
                                                             row(op->out, r));
    } else if (const auto* op = std::get_if<EmbedOp>(&any)) {
        const Table& table = tables_[index(op->table)];
        int i = 0;
        if (table.by == IndexedBy::kToken) i = batch.tokens[r];
        if (table.by == IndexedBy::kPosition) i = batch.positions[r];
        table.format->dequantize(table.data + index(i) * table.row_bytes, table.cols, row(op->out, r));
        if (op->scale != 1.0f) kernels_->scale(row(op->out, r), op->scale, table.cols, row(op->out, r));
    } else if (const auto* op = std::get_if<RopeTableOp>(&any)) {
        const size_t half = op->inv_freq.size();
        float* out = row(op->out, r);
        for (size_t i = 0; i < half; i++) {
            const double angle = batch.positions[r] * op->inv_freq[i];
            out[i] = static_cast<float>(std::cos(angle)) * op->magnitude;
            out[half + i] = static_cast<float>(std::sin(angle)) * op->magnitude;
        }
    } else if (const auto* op = std::get_if<ScaleOp>(&any)) {
        kernels_->scale(row(op->x, r), op->factor, cols(op->out), row(op->out, r));
    } else if (const auto* op = std::get_if<ActivateOp>(&any)) {
        (op->gelu ? kernels_->gelu : kernels_->silu)(row(op->x, r), cols(op->out), row(op->out, r));
    } else if (const auto* op = std::get_if<SoftCapOp>(&any)) {
        kernels_->softcap(row(op->x, r), op->cap, cols(op->out), row(op->out, r));
    } else if (const auto* op = std::get_if<TakeRowsOp>(&any)) {
        memcpy(row(op->out, r), row(op->x, batch.logit_rows[r]), sizeof(float) * index(cols(op->out)));
    }
}

int Program::groups(int matrix) const { return pieces(matrices_[index(matrix)].packed.rows, kGroup); }

// Tokens whose activations fit in L2, all columns of them: the `tokens` of a step in as few even parts as can be.
int Program::tokens_at_once(const LinearStage& stage, int tokens) const {
    size_t per_token = 1;
    for (int id : stage.acts)
        if (id >= 0)
            per_token = std::max(per_token, acts_[index(id)].kernels->bytes * index(chunks(acts_[index(id)].cols)));
    const int fit = std::max(kTokenBlock, static_cast<int>(std::min(kTokensBytes / per_token, size_t{1} << 20)));
    return pieces(tokens, std::max(1, pieces(tokens, fit)));  // no token, no piece
}

// The weights of a stage are laid end to end and cut into pieces of `size` groups of 16 rows; tokens too are cut, and all the weights
// go past some tokens before the next.
void Program::run_linear(const LinearStage& stage, const Batch& batch, int piece, int size, void* scratch) {
    int total = 0;
    for (int w : stage.weights) total += groups(w);
    const int all_tokens = rows_of(stage.rows, batch);
    const int row_pieces = pieces(total, size), at_once = tokens_at_once(stage, all_tokens);
    const int begin = piece % row_pieces * size, end = begin + size;
    const int first_token = piece / row_pieces * at_once;
    const int tokens = std::min(at_once, all_tokens - first_token);
    int base = 0;
    for (size_t i = 0; i < stage.weights.size(); base += groups(stage.weights[i]), i++) {
        const int first = std::max(begin - base, 0), last = std::min(end - base, groups(stage.weights[i]));
        if (first >= last) continue;
        const Matrix& m = matrices_[index(stage.weights[i])];
        const int bias = stage.biases[i];
        const int act = stage.acts[i];
        const int out = stage.outs[i];
        m.format->linear(
            {&m.packed, act < 0 ? nullptr : acts(act, first_token), act_stride(stage.rows), row(stage.x, first_token),
             row_stride(buffers_[index(stage.x)]), tokens, bias < 0 ? nullptr : vectors_[index(bias)].data(),
             row(out, first_token), row_stride(buffers_[index(out)]), scratch},
            first, last);
    }
}

// The parts of an attention over this batch; layers of the same heads have the same parts.
const std::vector<Program::AttentionItem>& Program::attention_items(const AttentionStage& stage, const Batch& batch) {
    const int heads = stage.heads, kv_heads = kv_layers_[index(stage.layer)].kv_heads;
    for (const AttentionPlan& plan : attention_plans_)
        if (plan.heads == heads && plan.kv_heads == kv_heads) return plan.items;
    const int group = heads / kv_heads;
    // The heads of a group share the loading of keys, unless there is too little else to give every thread work.
    const bool spread = batch.token_count * kv_heads < team_.size();
    const int heads_at_once = spread ? 1 : std::min(group, kMostAttentionRows);
    const int tokens_at_once = std::max(1, kMostAttentionRows / heads_at_once);
    std::vector<AttentionItem> items;
    for (int s = 0; s < batch.sequence_count; s++) {
        const int count = batch.query_start[s + 1] - batch.query_start[s];
        for (int t = 0; t < count; t += tokens_at_once)
            for (int kv = 0; kv < kv_heads; kv++)
                for (int h = 0; h < group; h += heads_at_once)
                    items.push_back({s, t, std::min(t + tokens_at_once, count), kv * group + h,
                                     kv * group + std::min(h + heads_at_once, group)});
    }
    std::reverse(items.begin(), items.end());  // later tokens have more keys: the long items first
    attention_plans_.push_back({heads, kv_heads, std::move(items)});
    return attention_plans_.back().items;
}

void Program::run_attention(const AttentionStage& stage, const Batch& batch, int piece, void* scratch) {
    const KvLayer& layer = kv_layers_[index(stage.layer)];
    const AttentionItem& item = attention_items(stage, batch)[index(piece)];
    const int s = item.sequence, first = batch.query_start[s];
    kernels_->attend(
        {row(stage.q, 0), row(stage.out, 0), row_stride(buffers_[index(stage.q)]), keys(layer, 0), values(layer, 0),
         kv_block_, batch.block_tables + index(s) * index(batch.table_width), batch.context_len[s], first,
         batch.query_start[s + 1] - first, stage.heads, layer.kv_heads, layer.head_dim, stage.scale, stage.softcap,
         stage.window, !stage.causal, stage.slopes < 0 ? nullptr : vectors_[index(stage.slopes)].data(), scratch},
        item.first_token, item.last_token, item.first_head, item.last_head);
}

}  // namespace corral
