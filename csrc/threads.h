// A team of threads that run one function together and meet at barriers.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace corral {

// Wait for `value` to leave `old`: spin for some microseconds, as most waits are shorter, then sleep, so that a thread which lost its
// CPU to a quota or a neighbour doesn't make the others burn theirs.
class Gate {
   public:
    uint32_t get() const { return value_.load(std::memory_order_acquire); }
    void open();  // change the value and wake whoever waits
    void wait_while(uint32_t old) const;

   private:
    alignas(64) std::atomic<uint32_t> value_{0};
};

class Team {
   public:
    explicit Team(int threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return threads_; }

    // Run fn(thread index) on every thread, the caller being thread 0, and wait for all.
    void run(const std::function<void(int)>& fn);

    // Inside run: nobody goes on before everybody came here.
    void barrier();

   private:
    void work(int index);

    const int threads_;
    Gate start_, phase_;
    alignas(64) std::atomic<int> arrived_{0};
    const std::function<void(int)>* job_ = nullptr;
    bool stopping_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace corral
