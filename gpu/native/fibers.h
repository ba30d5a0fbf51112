// A fiber: a stack, and the place where it was left. Only what `launch.h` needs, for one host thread.
//
// x86-64 keeps six registers and the stack pointer (System V ABI: the callee-saved ones; a kernel changes neither
// MXCSR nor the x87 control word). Everywhere else, or with STOCKADE_PORTABLE_FIBERS, ucontext does it, about ten
// times slower because it saves the signal mask with a system call.
#pragma once

#if !defined(__x86_64__) || defined(STOCKADE_PORTABLE_FIBERS)
#include <ucontext.h>
#endif

namespace stockade {

#if defined(__x86_64__) && !defined(STOCKADE_PORTABLE_FIBERS)

struct Context {
    void *stack_pointer;
};

#if defined(__clang__)
#define STOCKADE_OPAQUE noinline
#else
#define STOCKADE_OPAQUE noipa  // or the optimizer believes that it changes no register a caller may use
#endif

// Leaves the running stack in `from` and goes on where `to` was left.
__attribute__((naked, STOCKADE_OPAQUE, unused)) static void switch_context(Context * /* rdi: from */, Context * /* rsi: to */)
{
    __asm__ volatile(
        "pushq %rbp\n\t"
        "pushq %rbx\n\t"
        "pushq %r12\n\t"
        "pushq %r13\n\t"
        "pushq %r14\n\t"
        "pushq %r15\n\t"
        "movq %rsp, (%rdi)\n\t"
        "movq (%rsi), %rsp\n\t"
        "popq %r15\n\t"
        "popq %r14\n\t"
        "popq %r13\n\t"
        "popq %r12\n\t"
        "popq %rbx\n\t"
        "popq %rbp\n\t"
        "ret\n\t");
}

static inline void make_context(Context *context, char *stack, size_t bytes, void (*entry)())
{
    void **top = (void **)(((uintptr_t)stack + bytes) & ~(uintptr_t)15);
    *--top = nullptr;  // where a caller's return address would be: the ABI's alignment at entry, and a stop for debuggers
    *--top = (void *)entry;
    for (int saved = 0; saved < 6; saved++)
        *--top = nullptr;
    context->stack_pointer = top;
}

#else

struct Context {
    ucontext_t state;
};

static void switch_context(Context *from, Context *to) { swapcontext(&from->state, &to->state); }

static inline void make_context(Context *context, char *stack, size_t bytes, void (*entry)())
{
    getcontext(&context->state);
    context->state.uc_stack.ss_sp = stack;
    context->state.uc_stack.ss_size = bytes;
    context->state.uc_link = nullptr;
    makecontext(&context->state, entry, 0);
}

#endif

constexpr size_t PAGE_BYTES = 4096;
constexpr size_t STACK_BYTES = 64 * 1024;  // a CUDA thread has 1 KiB by default and 512 KiB at most; printf wants more
constexpr unsigned MAX_THREADS = 1024;     // of a block, and so of fibers (CUDA C++ Programming Guide)

struct Fiber {
    Context context;
    Fiber *next;     // in the one list it is in: idle, ready, or at the barrier
    uint3 thread;    // threadIdx of the thread that waits on this stack
    unsigned first;  // number of the first thread that runs on this stack
    bool waited;     // its thread has waited: other threads go on elsewhere, so the loop ends with this one
};

// All stacks of one host thread; made on demand, with an unmapped page below each to stop an overflow.
struct Stacks {
    char *base = nullptr;
    unsigned made = 0;
    Fiber fibers[MAX_THREADS];

    ~Stacks()
    {
        if (base)
            munmap(base, MAX_THREADS * STACK_BYTES);
    }

    Fiber *make(void (*entry)())
    {
        if (made == MAX_THREADS)
            return nullptr;
        if (!base) {
            void *map = mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (map == MAP_FAILED)
                return nullptr;
            base = (char *)map;
        }
        char *stack = base + made * STACK_BYTES;
        mprotect(stack, PAGE_BYTES, PROT_NONE);
        // Stacks that start at the same offset of a page compete for the same few cache sets.
        const size_t colour = made * 832 % (8 * 1024);
        Fiber *fiber = &fibers[made++];
        make_context(&fiber->context, stack + PAGE_BYTES, STACK_BYTES - PAGE_BYTES - colour, entry);
        return fiber;
    }

    // Does an access to `address` mean that a stack was too small?
    bool is_guard(const void *address) const
    {
        const size_t offset = (size_t)((const char *)address - base);
        return base && (const char *)address >= base && offset < made * STACK_BYTES && offset % STACK_BYTES < PAGE_BYTES;
    }
};

}  // namespace stockade
