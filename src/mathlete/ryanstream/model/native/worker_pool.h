// Threads that share out the chunks of one loop at a time. Used by common.h.
//
// A loop is cut into chunks that are claimed one by one, so a thread that is slow, or that the system has put
// aside (a program in the sandbox wants a core too), holds up at most the chunk it is on. The caller works as well
// and returns when every chunk is done: a worker that never woke up is not waited for. OpenMP's barrier waits for
// all threads, which on a busy two-core machine costs more than the work itself.

#pragma once

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

class WorkerPool {
 public:
  // The one pool of this process. Never destroyed: its threads end with the process.
  static WorkerPool& get() {
    static WorkerPool* pool = new WorkerPool;
    return *pool;
  }

  // Work with `threads` threads from now on, the caller's included. One that is not needed sleeps until it is.
  void set_threads(int threads) {
    threads_ = std::max(1, threads);
    threads_.notify_all();
    for (; started_ < threads_ - 1; ++started_) std::thread([this, id = started_] { serve(id); }).detach();
  }

  // Call body(begin, end) on pieces of [0, total), each of at most `grain` items. While one caller has the pool,
  // another does its loop alone.
  template <class Body>
  void run(int total, int grain, const Body& body) {
    const int chunks = (total + grain - 1) / grain;
    std::unique_lock<std::mutex> alone(caller_, std::defer_lock);
    if (chunks <= 1 || threads_ == 1 || !alone.try_lock()) {
      if (total > 0) body(0, total);
      return;
    }
    job_ = {[](const void* context, int begin, int end) { (*static_cast<const Body*>(context))(begin, end); }, &body,
            total, grain};
    done_.store(0, std::memory_order_relaxed);
    ++epoch_;
    ticket_.store(static_cast<uint64_t>(epoch_) << 32 | static_cast<uint32_t>(chunks), std::memory_order_release);
    ticket_.notify_all();  // no system call unless a worker sleeps
    while (work_on_one()) {
    }
    for (int spins = 0; done_.load(std::memory_order_acquire) != static_cast<uint32_t>(chunks); ++spins) {
      _mm_pause();
      if (spins % kSpinsBeforeYield == kSpinsBeforeYield - 1) sched_yield();  // its worker may want this core
    }
  }

  // A grain that gives each thread several chunks of a loop, so that they end together.
  int grain(int total) const { return std::max(1, total / (threads_ * kChunksPerThread)); }

 private:
  struct Job {
    void (*call)(const void*, int, int);
    const void* context;
    int total;
    int grain;
  };

  static constexpr int kChunksPerThread = 8;
  static constexpr int kSpinsBeforeYield = 256;
  static constexpr int kSpinsBeforeSleep = 20000;

  // Claim a chunk and do it; false when none is left. The ticket holds the job's number and the chunks left to
  // claim. A job is only read after a chunk of it was claimed: it cannot end, or change, before that chunk is done.
  bool work_on_one() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    do {
      if (static_cast<uint32_t>(ticket) == 0) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel));
    const int begin = (static_cast<int>(static_cast<uint32_t>(ticket)) - 1) * job_.grain;
    job_.call(job_.context, begin, std::min(job_.total, begin + job_.grain));
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }

  void serve(int id) {
    for (;;) {
      for (int threads = threads_; id >= threads - 1; threads = threads_) threads_.wait(threads);
      const uint64_t seen = ticket_.load(std::memory_order_acquire);
      if (work_on_one()) continue;
      int spins = 0;
      while (ticket_.load(std::memory_order_relaxed) == seen && spins < kSpinsBeforeSleep) {
        _mm_pause();
        ++spins;
      }
      if (spins == kSpinsBeforeSleep) ticket_.wait(seen, std::memory_order_acquire);
    }
  }

  std::mutex caller_;
  std::atomic<int> threads_{1};
  int started_ = 0;
  uint32_t epoch_ = 0;
  Job job_{};
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
};
