// Contexts, streams and events: a stream is a thread with a queue, so that work is as asynchronous as on a device.
#pragma once
#include <cuda.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

struct CUstream_st {
    explicit CUstream_st(CUcontext owner) : context(owner), worker([this] { run(); }) {}
    ~CUstream_st()
    {
        push(nullptr);
        worker.join();
    }

    void push(std::function<void()> work)
    {
        std::lock_guard lock(mutex);
        queue.push_back(std::move(work));
        changed.notify_all();
    }

    void synchronize()
    {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return queue.empty() && !busy; });
    }

    bool is_idle()
    {
        std::lock_guard lock(mutex);
        return queue.empty() && !busy;
    }

    const CUcontext context;

private:
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    bool busy = false;
    std::thread worker;  // last: it uses all of the above

    void run()
    {
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return !queue.empty(); });
            auto work = std::move(queue.front());
            queue.pop_front();
            if (!work)
                return;
            busy = true;
            lock.unlock();
            work();
            lock.lock();
            busy = false;
            changed.notify_all();
        }
    }
};

struct CUevent_st {
    std::mutex mutex;
    std::condition_variable reached;
    unsigned flags = 0;
    unsigned long recorded = 0, done = 0;
    std::chrono::steady_clock::time_point at;

    void record(CUstream stream)
    {
        std::unique_lock lock(mutex);
        const unsigned long number = ++recorded;
        lock.unlock();
        stream->push([this, number] {
            std::lock_guard inner(mutex);
            done = number;
            at = std::chrono::steady_clock::now();
            reached.notify_all();
        });
    }

    void synchronize()
    {
        std::unique_lock lock(mutex);
        const unsigned long wanted = recorded;
        reached.wait(lock, [&] { return done >= wanted; });
    }

    bool is_done()
    {
        std::lock_guard lock(mutex);
        return done == recorded;
    }
};

struct CUctx_st {
    CUdevice device = 0;
    std::atomic<int> error{0};  // sticky: once set, every call in this context returns it
    std::atomic<int> references{1};
    std::mutex mutex;
    std::set<CUstream> streams;
    CUstream null_stream = nullptr;

    CUstream add_stream()
    {
        auto *stream = new CUstream_st(this);
        std::lock_guard lock(mutex);
        streams.insert(stream);
        return stream;
    }

    // The legacy default stream: it starts after everything else in the context.
    CUstream resolve(CUstream stream)
    {
        if (stream)
            return stream;
        synchronize();
        std::unique_lock lock(mutex);
        if (!null_stream) {
            null_stream = new CUstream_st(this);
            streams.insert(null_stream);
        }
        return null_stream;
    }

    void synchronize()
    {
        std::unique_lock lock(mutex);
        const std::set<CUstream> all = streams;
        lock.unlock();
        for (CUstream stream : all)
            stream->synchronize();
    }

    // Enqueues `work`, which returns 0 or a CUDA error that then sticks.
    CUresult enqueue(CUstream stream, bool wait, std::function<int()> work)
    {
        stream = resolve(stream);
        stream->push([this, work = std::move(work)] {
            if (error)
                return;  // work behind a fault does not run
            if (int failed = work())
                error = failed;
        });
        if (!wait)
            return CUDA_SUCCESS;
        stream->synchronize();
        return (CUresult)error.load();
    }
};
