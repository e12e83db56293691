// Threads that work through stages together.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace corral {

// A run is a list of stages, each of some pieces of work. Threads claim pieces; a stage begins when every piece of the one before is
// done. Nobody waits for a thread, only for a piece that somebody has begun: a thread that lost its CPU to a quota or a neighbour
// between two pieces holds up no one, and joins again wherever the others are. Waiting is a short spin, then sleep.
//
// A thread claims pieces of its own share first, in order: what follows a piece it has begun is its own too, and may be fetched ahead.
class Team {
   public:
    using Work = std::function<void(int stage, int piece, int thread)>;

    explicit Team(int threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return threads_; }

    // Run work(stage, piece, thread index) for every piece of every stage; pieces[i] is the number of pieces of stage i, below 2^20.
    // The caller is thread 0.
    void run(const std::vector<int>& pieces, const Work& work);

   private:
    static constexpr int kMostShares = 8;  // many threads have a share together: a stage is a line or two to lay out
    struct alignas(64) Stage {
        std::atomic<uint64_t> claims[kMostShares] =
            {};                         // of a share: epoch, pieces in all, pieces claimed: see pack() in threads.cpp
        std::atomic<uint32_t> done{0};  // epoch, pieces done
        std::atomic<int> pieces{0};     // of all shares
    };
    struct Board {
        explicit Board(int capacity) : stages(new Stage[static_cast<size_t>(capacity)]), capacity(capacity) {}
        std::unique_ptr<Stage[]> stages;
        int capacity;
        std::atomic<int> count{0};
    };

    int share_begin(int pieces, int share) const;
    void follow(int thread);
    void work_through(uint32_t epoch, int thread);

    const int threads_, shares_;
    const Work* work_ = nullptr;
    std::atomic<Board*> board_{nullptr};
    std::vector<std::unique_ptr<Board>> boards_;  // the outgrown ones too: a late thread may still be looking at one
    alignas(64) std::atomic<uint32_t> epoch_{0};
    std::atomic<bool> stopping_{false};
    std::vector<std::thread> workers_;
};

}  // namespace corral
