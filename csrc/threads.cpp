#include "threads.h"

#include <algorithm>

namespace corral {

namespace {

constexpr int kSpins = 1000;  // some tens of microseconds: longer than a piece
constexpr int kCountBits = 20, kEpochShift = 2 * kCountBits;
constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
constexpr uint64_t kEpochMask = (uint64_t{1} << (64 - kEpochShift)) - 1;

uint64_t pack(uint32_t epoch, int total) {
    return (epoch & kEpochMask) << kEpochShift | static_cast<uint64_t>(total) << kCountBits;
}
bool of_epoch(uint64_t claims, uint32_t epoch) { return claims >> kEpochShift == (epoch & kEpochMask); }
uint32_t total_of(uint64_t claims) { return static_cast<uint32_t>(claims >> kCountBits & kCountMask); }
uint32_t next_of(uint64_t claims) { return static_cast<uint32_t>(claims & kCountMask); }

// Stage::done of a run when `count` pieces are done. With the epoch in it a thread that slept through the end of a run finds
// another number, even if as many pieces of the next one are done.
uint32_t done_of(uint32_t epoch, uint32_t count) { return epoch << kCountBits | count; }

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Wait until `value` is not `old`.
void wait_while(const std::atomic<uint32_t>& value, uint32_t old) {
    for (int i = 0; i < kSpins; i++) {
        if (value.load(std::memory_order_acquire) != old) return;
        relax();
    }
    value.wait(old, std::memory_order_acquire);
}

}  // namespace

Team::Team(int threads) : threads_(std::max(threads, 1)), shares_(std::min(threads_, kMostShares)) {
    for (int i = 1; i < threads_; i++) workers_.emplace_back([this, i] { follow(i); });
}

Team::~Team() {
    stopping_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Team::run(const std::vector<int>& pieces, const Work& work) {
    const int count = static_cast<int>(pieces.size());
    Board* board = board_.load(std::memory_order_relaxed);
    if (!board || board->capacity < count) {
        boards_.push_back(std::make_unique<Board>(count));
        board = boards_.back().get();
    }
    const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
    // The new epoch goes in first: a thread that is late from the run before then leaves the stage alone.
    for (int i = 0; i < count; i++) {
        const int total = pieces[static_cast<size_t>(i)];
        board->stages[i].pieces.store(total, std::memory_order_relaxed);
        for (int s = 0; s < shares_; s++) {
            const int size = share_begin(total, s + 1) - share_begin(total, s);
            board->stages[i].claims[s].store(pack(epoch, size), std::memory_order_release);
        }
        board->stages[i].done.store(done_of(epoch, 0), std::memory_order_release);
    }
    board->count.store(count, std::memory_order_relaxed);
    board_.store(board, std::memory_order_release);
    work_ = &work;
    epoch_.store(epoch, std::memory_order_release);
    epoch_.notify_all();
    work_through(epoch, 0);
}

int Team::share_begin(int pieces, int share) const {
    return static_cast<int>(static_cast<int64_t>(pieces) * share / shares_);
}

void Team::follow(int thread) {
    for (uint32_t seen = 0;;) {
        wait_while(epoch_, seen);
        // in this order: whoever reads the epoch of the end knows that it is the end
        const uint32_t epoch = epoch_.load(std::memory_order_acquire);
        if (stopping_.load(std::memory_order_relaxed)) return;
        if (epoch == seen) continue;
        seen = epoch;
        work_through(epoch, thread);
    }
}

void Team::work_through(uint32_t epoch, int thread) {
    Board& board = *board_.load(std::memory_order_acquire);
    const int count = board.count.load(std::memory_order_relaxed);
    for (int i = 0; i < count; i++) {
        Stage& stage = board.stages[i];
        uint32_t mine = 0, total = 0;
        for (int k = 0; k < shares_; k++) {
            const int share = (thread + k) % shares_;
            std::atomic<uint64_t>& shared = stage.claims[share];
            uint64_t claims = shared.load(std::memory_order_acquire);
            while (of_epoch(claims, epoch) && next_of(claims) < total_of(claims)) {
                if (!shared.compare_exchange_weak(claims, claims + 1, std::memory_order_acq_rel)) continue;
                // as it is until the piece just claimed is done
                const int first = share_begin(stage.pieces.load(std::memory_order_relaxed), share);
                (*work_)(i, first + static_cast<int>(next_of(claims)), thread);
                mine++;
                claims = shared.load(std::memory_order_acquire);
            }
            if (!of_epoch(claims, epoch)) return;  // the others finished this run without us
            total += total_of(claims);
        }
        const uint32_t all = done_of(epoch, total);
        if (mine && stage.done.fetch_add(mine, std::memory_order_acq_rel) + mine == all) stage.done.notify_all();
        for (uint32_t done; (done = stage.done.load(std::memory_order_acquire)) != all;) {
            if (!of_epoch(stage.claims[0].load(std::memory_order_acquire), epoch)) return;
            wait_while(stage.done, done);
        }
    }
}

}  // namespace corral
