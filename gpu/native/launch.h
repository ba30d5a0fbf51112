// Blocks, barriers, warps and faults. Read cuda_on_cpu.h first.
//
// INVARIANT: a fiber is in exactly one place: running, idle, ready, at the block's barrier, or in a warp's
// `waiting`. `exited` counts threads that ended; a block is done when all have, and stuck when nobody can run.
#pragma once

// What the host hands over; `gpu/cpu_device.py` declares the same structure for ctypes. Any number of host threads
// may serve one launch at the same time: they take blocks off `next_block`.
extern "C" struct StockadeLaunch {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;     // dynamic shared memory
    unsigned chunk;            // blocks that a host thread takes at a time
    const void *parameters;    // packed as CU_LAUNCH_PARAM_BUFFER_POINTER wants them
    uint64_t parameter_bytes;
    uint64_t next_block;
    int32_t status;            // 0, or the first fault's CUDA error number
    uint32_t fault_detail;     // one of stockade::Detail
    unsigned fault_block[3];
    unsigned fault_thread[3];
    uint64_t fault_address;
};

namespace stockade {

enum Status { OK = 0, BAD_PARAMETERS = 1, OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700, ASSERT = 710, LAUNCH_FAILED = 719 };
enum Detail { NO_DETAIL = 0, STACK_OVERFLOW = 1, DIVERGENT_BARRIER = 2, TRAP = 3, DIVISION = 4, ILLEGAL_INSTRUCTION = 5 };
enum Collective : unsigned char { SYNC, EXCHANGE, VOTE };

constexpr unsigned LANES = 32;
constexpr size_t DYNAMIC_SHARED_BYTES = 228 * 1024;  // the most any device gives (compute capability 9.0)

struct Warp {
    unsigned arrived;  // lanes in a collective operation that is not complete
    unsigned exited;
    unsigned want[LANES];  // the mask each arrived lane named
    Collective kind[LANES];
    Fiber *waiting[LANES];
    unsigned char from[LANES];
    uint64_t give[LANES];
    uint64_t got[LANES];
};

struct FiberList {
    Fiber *head = nullptr, *tail = nullptr;
    void push(Fiber *fiber)
    {
        fiber->next = nullptr;
        (head ? tail->next : head) = fiber;
        tail = fiber;
    }
    Fiber *pop()
    {
        Fiber *fiber = head;
        head = fiber->next;
        return fiber;
    }
    void append(FiberList &other)
    {
        if (!other.head)
            return;
        (head ? tail->next : head) = other.head;
        tail = other.tail;
        other.head = nullptr;
    }
};

// A host thread as a streaming multiprocessor: all that one block at a time needs.
struct Multiprocessor {
    Context host;
    Fiber *running = nullptr;
    Fiber *idle = nullptr;
    FiberList ready, at_barrier;
    unsigned arrived = 0;  // length of at_barrier
    unsigned threads = 0, started = 0, exited = 0;
    void (*body)(void *parameters, unsigned first) = nullptr;
    void *parameters = nullptr;
    unsigned votes = 0, vote_result = 0;
    Warp warps[MAX_THREADS / LANES];
    Stacks stacks;
    char *dynamic_shared = nullptr;
    char *signal_stack = nullptr;
    sigjmp_buf trap;
    volatile sig_atomic_t in_kernel = 0;
    StockadeLaunch *launch = nullptr;

    ~Multiprocessor()
    {
        free(dynamic_shared);
        if (signal_stack) {
            stack_t off = {};
            off.ss_flags = SS_DISABLE;
            sigaltstack(&off, nullptr);
            free(signal_stack);
        }
    }
};

STOCKADE_HOT Multiprocessor *here;  // the multiprocessor that this host thread is

static inline unsigned thread_number()
{
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

static inline uint3 thread_index(unsigned number)
{
    return {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
}

// ---- faults ---------------------------------------------------------------------------------------------------

static inline void note_fault(StockadeLaunch *launch, int status, Detail detail, const void *address)
{
    int32_t none = OK;
    if (!__atomic_compare_exchange_n(&launch->status, &none, status, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;  // another host thread was first
    launch->fault_detail = detail;
    launch->fault_address = (uint64_t)(uintptr_t)address;
    const unsigned block[3] = {blockIdx.x, blockIdx.y, blockIdx.z};
    const unsigned thread[3] = {threadIdx.x, threadIdx.y, threadIdx.z};
    memcpy(launch->fault_block, block, sizeof block);
    memcpy(launch->fault_thread, thread, sizeof thread);
}

[[noreturn]] static void stop_kernel(int status, Detail detail, const void *address = nullptr)
{
    here->in_kernel = 0;
    note_fault(here->launch, status, detail, address);
    siglongjmp(here->trap, 1);  // from any fiber: the host's stack was never left
}

constexpr int CAUGHT[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction before[sizeof CAUGHT / sizeof *CAUGHT];

static void on_signal(int number, siginfo_t *info, void *context)
{
    if (here && here->in_kernel) {
        const bool overflow = number == SIGSEGV && here->stacks.is_guard(info->si_addr);
        if (overflow)
            stop_kernel(LAUNCH_FAILED, STACK_OVERFLOW, info->si_addr);
        if (number == SIGFPE || number == SIGILL)
            stop_kernel(LAUNCH_FAILED, number == SIGFPE ? DIVISION : ILLEGAL_INSTRUCTION, info->si_addr);
        stop_kernel(ILLEGAL_ADDRESS, NO_DETAIL, info->si_addr);
    }
    for (unsigned i = 0; i < sizeof CAUGHT / sizeof *CAUGHT; i++)
        if (CAUGHT[i] == number) {
            if ((before[i].sa_flags & SA_SIGINFO) && before[i].sa_sigaction)
                before[i].sa_sigaction(number, info, context);
            else
                sigaction(number, &before[i], nullptr);  // the instruction faults again, now as it would without us
        }
}

static bool catch_faults(Multiprocessor *sm)
{
    static const bool installed = [] {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (unsigned i = 0; i < sizeof CAUGHT / sizeof *CAUGHT; i++)
            sigaction(CAUGHT[i], &action, &before[i]);
        return true;
    }();
    (void)installed;
    if (sm->signal_stack)
        return true;
    const size_t bytes = 64 * 1024;
    stack_t stack = {};
    stack.ss_sp = sm->signal_stack = (char *)malloc(bytes);
    stack.ss_size = bytes;
    return sm->signal_stack && sigaltstack(&stack, nullptr) == 0;
}

// ---- taking turns ---------------------------------------------------------------------------------------------

static void fiber_main();

// The next fiber that can run, or null: a ready one, or one on which the loop over threads goes on.
static inline Fiber *next_fiber(Multiprocessor *sm)
{
    if (sm->ready.head)
        return sm->ready.pop();
    if (sm->started == sm->threads)
        return nullptr;
    Fiber *fiber = sm->idle;
    if (fiber)
        sm->idle = fiber->next;
    else if (!(fiber = sm->stacks.make(fiber_main)))
        stop_kernel(OUT_OF_MEMORY, NO_DETAIL);
    fiber->first = sm->started;
    fiber->waited = false;
    fiber->thread = thread_index(sm->started);
    return fiber;
}

static inline void enter(Multiprocessor *sm, Fiber *fiber)
{
    sm->running = fiber;
    threadIdx = fiber->thread;
}

// Leaves the running fiber, which is in some list, and goes on with whoever can run.
static inline void suspend(Multiprocessor *sm, Fiber *self)
{
    self->waited = true;
    self->thread = threadIdx;
    if (Fiber *next = next_fiber(sm)) {
        enter(sm, next);
        switch_context(&self->context, &next->context);
    } else
        switch_context(&self->context, &sm->host);
}

static inline void release_barrier(Multiprocessor *sm)
{
    sm->vote_result = sm->votes;
    sm->votes = 0;
    sm->arrived = 0;
    sm->ready.append(sm->at_barrier);
}

// All lanes of `mask` have arrived or exited: every lane gets its result, those that wait become ready.
static void complete(Multiprocessor *sm, Warp *warp, unsigned mask, Collective kind)
{
    const unsigned present = warp->arrived & mask;
    unsigned ballot = 0;
    for (unsigned rest = present; rest; rest &= rest - 1)
        ballot |= (unsigned)(warp->give[__builtin_ctz(rest)] != 0) << __builtin_ctz(rest);
    for (unsigned rest = present; rest; rest &= rest - 1) {
        const unsigned lane = (unsigned)__builtin_ctz(rest), from = warp->from[lane];
        if (kind == EXCHANGE)  // from a lane that takes no part CUDA promises nothing: then it is the lane's own value
            warp->got[lane] = warp->give[present >> from & 1 ? from : lane];
        else if (kind == VOTE)
            warp->got[lane] = ballot;
        if (Fiber *fiber = warp->waiting[lane]) {
            warp->waiting[lane] = nullptr;
            sm->ready.push(fiber);
        }
    }
    warp->arrived &= ~mask;
}

// Threads [first, end) have ended: whoever waited for them only may go on.
static void count_exits(Multiprocessor *sm, unsigned first, unsigned end)
{
    sm->exited += end - first;
    for (unsigned number = first; number < end;) {
        Warp *warp = &sm->warps[number / LANES];
        const unsigned upto = (number / LANES + 1) * LANES < end ? (number / LANES + 1) * LANES : end;
        warp->exited |= (unsigned)(((uint64_t)1 << (upto - number)) - 1) << number % LANES;
        for (unsigned rest = warp->arrived; rest; rest &= rest - 1) {
            const unsigned lane = (unsigned)__builtin_ctz(rest), want = warp->want[lane];
            if (warp->arrived >> lane & 1 && ((warp->arrived | warp->exited) & want) == want)
                complete(sm, warp, want, warp->kind[lane]);
        }
        number = upto;
    }
    if (sm->arrived && sm->arrived + sm->exited == sm->threads)
        release_barrier(sm);
}

// The running thread is about to wait: threads before it in this fiber's loop have ended, those after it go on elsewhere.
static inline void leave_loop(Multiprocessor *sm, Fiber *self, unsigned number)
{
    if (self->waited)
        return;
    self->waited = true;
    sm->started = number + 1;
    if (number != self->first)
        count_exits(sm, self->first, number);
}

__attribute__((noinline, unused)) static void block_barrier()
{
    Multiprocessor *sm = here;
    Fiber *self = sm->running;
    leave_loop(sm, self, self->waited ? 0 : thread_number());
    if (sm->arrived + 1 + sm->exited == sm->threads)
        return release_barrier(sm);
    sm->arrived++;
    sm->at_barrier.push(self);
    suspend(sm, self);
}

// One collective operation of the lanes in `mask`; returns what the lane gets from it.
__attribute__((noinline, unused)) static uint64_t warp_collective(unsigned mask, Collective kind, uint64_t give, unsigned from)
{
    Multiprocessor *sm = here;
    Fiber *self = sm->running;
    const unsigned number = thread_number(), lane = number % LANES, left = sm->threads - number / LANES * LANES;
    leave_loop(sm, self, number);
    Warp *warp = &sm->warps[number / LANES];
    mask = (mask | 1u << lane) & (left >= LANES ? ~0u : (1u << left) - 1);
    warp->arrived |= 1u << lane;
    warp->want[lane] = mask;
    warp->kind[lane] = kind;
    warp->give[lane] = give;
    warp->from[lane] = (unsigned char)from;
    if (((warp->arrived | warp->exited) & mask) == mask)
        complete(sm, warp, mask, kind);
    else {
        warp->waiting[lane] = self;
        suspend(sm, self);
    }
    return warp->got[lane];
}

// What every fiber runs, for ever: a piece of the loop over threads, then whatever is next.
static void fiber_main()
{
    for (;;) {
        Multiprocessor *sm = here;
        Fiber *self = sm->running;
        sm->body(sm->parameters, self->first);
        if (self->waited) {
            const unsigned number = thread_number();
            count_exits(sm, number, number + 1);
        } else {
            sm->started = sm->threads;
            count_exits(sm, self->first, sm->threads);
        }
        self->next = sm->idle;
        sm->idle = self;
        Fiber *next = next_fiber(sm);
        if (!next)
            switch_context(&self->context, &sm->host);
        else {
            enter(sm, next);
            if (next != self)
                switch_context(&self->context, &next->context);
        }
    }
}

static inline void run_block(Multiprocessor *sm)
{
    sm->started = sm->exited = sm->arrived = sm->votes = 0;
    for (unsigned i = 0; i < (sm->threads + LANES - 1) / LANES; i++)
        sm->warps[i].arrived = sm->warps[i].exited = 0;
    while (sm->exited < sm->threads) {
        Fiber *fiber = next_fiber(sm);
        if (!fiber)
            stop_kernel(LAUNCH_FAILED, DIVERGENT_BARRIER);
        enter(sm, fiber);
        switch_context(&sm->host, &fiber->context);
    }
}

// ---- serving a launch -----------------------------------------------------------------------------------------

static inline Multiprocessor *become_multiprocessor()
{
    struct Owner {
        Multiprocessor *sm = nullptr;
        ~Owner()
        {
            delete sm;
            here = nullptr;
        }
    };
    static thread_local Owner owner;
    if (!owner.sm) {
        Multiprocessor *sm = new Multiprocessor();
        sm->dynamic_shared = (char *)aligned_alloc(128, DYNAMIC_SHARED_BYTES);
        owner.sm = here = sm;
    }
    return owner.sm->dynamic_shared && catch_faults(owner.sm) ? owner.sm : nullptr;
}

template <auto kernel> struct Entry;

template <class... Parameters, void (*kernel)(Parameters...)> struct Entry<kernel> {
    using Values = std::tuple<std::decay_t<Parameters>...>;
    static constexpr auto indices = std::index_sequence_for<Parameters...>{};

    template <size_t... i> static bool unpack(Values &values, const StockadeLaunch *launch, std::index_sequence<i...>)
    {
        uint64_t offset = 0;
        bool fits = true;
        auto take = [&](auto &value) {
            offset = (offset + alignof(decltype(value)) - 1) / alignof(decltype(value)) * alignof(decltype(value));
            fits = fits && offset + sizeof value <= launch->parameter_bytes;
            if (fits)
                memcpy((void *)&value, (const char *)launch->parameters + offset, sizeof value);
            offset += sizeof value;
        };
        (take(std::get<i>(values)), ...);
        return fits;
    }

    template <size_t... i> static inline void loop(const Values &values, unsigned first, std::index_sequence<i...>)
    {
        const Fiber *self = here->running;
        const unsigned nx = blockDim.x, ny = blockDim.y, nz = blockDim.z;
        uint3 at = thread_index(first);
        for (; at.z < nz; at.z++, at.y = 0)
            for (; at.y < ny; at.y++, at.x = 0)
                for (; at.x < nx; at.x++) {
                    threadIdx = at;
                    kernel(std::get<i>(values)...);
                    if (__builtin_expect(self->waited, 0))
                        return;
                }
    }

    static void body(void *values, unsigned first) { loop(*(const Values *)values, first, indices); }

    static int serve(StockadeLaunch *launch)
    {
        Multiprocessor *sm = become_multiprocessor();
        Values values;
        if (!sm || launch->shared_bytes > DYNAMIC_SHARED_BYTES)
            return launch->status = OUT_OF_MEMORY;
        if (!unpack(values, launch, indices))
            return launch->status = BAD_PARAMETERS;
        const uint64_t nx = launch->grid[0], ny = launch->grid[1], blocks = nx * ny * launch->grid[2];
        gridDim = dim3(launch->grid[0], launch->grid[1], launch->grid[2]);
        blockDim = dim3(launch->block[0], launch->block[1], launch->block[2]);
        sm->threads = blockDim.x * blockDim.y * blockDim.z;
        sm->body = body;
        sm->parameters = &values;
        sm->launch = launch;
        if (sigsetjmp(sm->trap, 1)) {
            forget_fibers(sm);
            return launch->status;
        }
        const uint64_t chunk = launch->chunk ? launch->chunk : 1;
        for (;;) {
            const uint64_t begin = __atomic_fetch_add(&launch->next_block, chunk, __ATOMIC_RELAXED);
            if (begin >= blocks || __atomic_load_n(&launch->status, __ATOMIC_RELAXED))
                break;
            const uint64_t end = begin + chunk < blocks ? begin + chunk : blocks;
            sm->in_kernel = 1;
            for (uint64_t at = begin; at < end; at++) {
                blockIdx = {(unsigned)(at % nx), (unsigned)(at / nx % ny), (unsigned)(at / (nx * ny))};
                run_block(sm);
            }
            sm->in_kernel = 0;
        }
        return launch->status;
    }

    // After a fault some fibers are in the middle of a thread that never ends: all are made anew.
    static void forget_fibers(Multiprocessor *sm)
    {
        sm->idle = nullptr;
        sm->ready.head = sm->at_barrier.head = nullptr;
        sm->stacks.made = 0;
        for (Warp &warp : sm->warps)
            memset(warp.waiting, 0, sizeof warp.waiting);
    }
};

}  // namespace stockade

// Written by gpu/cuda_source.py behind the source, once for each kernel that the host may launch.
#define STOCKADE_KERNEL(name)                                                                          \
    extern "C" __attribute__((visibility("default"))) int stockade_serve_##name(StockadeLaunch *launch) \
    {                                                                                                  \
        return stockade::Entry<&name>::serve(launch);                                                  \
    }

// In place of `extern __shared__ type name[];`: the buffer of a host thread never moves, so its address is found once.
#define STOCKADE_DYNAMIC_SHARED(type, name) \
    static thread_local type *const name = (type *)stockade::here->dynamic_shared
