// Device memory, as host memory that behaves like a device's: not cleared, and an access past its end is a fault.
#pragma once
#include <cuda.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

namespace cusim {

class Memory {
public:
    static Memory &get()
    {
        static Memory memory;
        return memory;
    }

    CUresult allocate(CUdeviceptr *address, size_t bytes, size_t capacity)
    {
        if (!bytes)
            return CUDA_ERROR_INVALID_VALUE;
        const size_t used_bytes = up(bytes, GRANULE), mapped = up(used_bytes, PAGE);
        std::lock_guard lock(mutex);
        if (used + used_bytes > capacity)
            return CUDA_ERROR_OUT_OF_MEMORY;
        // Nothing is mapped for a long way on both sides; the end of the block is the end of its last page.
        char *map = (char *)mmap(nullptr, GAP + mapped + GAP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED || mprotect(map + GAP, mapped, PROT_READ | PROT_WRITE))
            return CUDA_ERROR_OUT_OF_MEMORY;
        std::memset(map + GAP, POISON, mapped);  // "The memory is not cleared": cuda.h on cuMemAlloc
        *address = (CUdeviceptr)(map + GAP + mapped - used_bytes);
        blocks[*address] = {bytes, map, GAP + mapped + GAP};
        used += used_bytes;
        return CUDA_SUCCESS;
    }

    CUresult release(CUdeviceptr address)
    {
        std::lock_guard lock(mutex);
        auto found = blocks.find(address);
        if (found == blocks.end())
            return CUDA_ERROR_INVALID_VALUE;
        used -= up(found->second.bytes, GRANULE);
        munmap(found->second.map, found->second.mapped);
        blocks.erase(found);
        return CUDA_SUCCESS;
    }

    // Do `bytes` from `address` on lie in one block?
    bool holds(CUdeviceptr address, size_t bytes)
    {
        std::lock_guard lock(mutex);
        auto after = blocks.upper_bound(address);
        if (after == blocks.begin())
            return false;
        auto &[begin, block] = *--after;
        return address + bytes <= begin + block.bytes;
    }

    void lock_pages(const void *host, size_t bytes)
    {
        std::lock_guard lock(mutex);
        pinned[(uintptr_t)host] = bytes;
    }

    bool unlock_pages(const void *host)
    {
        std::lock_guard lock(mutex);
        return pinned.erase((uintptr_t)host) == 1;
    }

    bool is_locked(const void *host, size_t bytes)
    {
        std::lock_guard lock(mutex);
        auto after = pinned.upper_bound((uintptr_t)host);
        if (after == pinned.begin())
            return false;
        auto [begin, length] = *--after;
        return (uintptr_t)host + bytes <= begin + length;
    }

    size_t in_use()
    {
        std::lock_guard lock(mutex);
        return used;
    }

private:
    struct Block {
        size_t bytes;
        char *map;
        size_t mapped;
    };
    static constexpr size_t GRANULE = 256, PAGE = 4096, GAP = 16 << 20;
    static constexpr int POISON = 0xA5;
    std::mutex mutex;
    std::map<CUdeviceptr, Block> blocks;
    std::map<uintptr_t, size_t> pinned;
    size_t used = 0;

    static size_t up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
};

}  // namespace cusim
