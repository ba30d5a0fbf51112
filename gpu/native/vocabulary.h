// What CUDA C++ gives a kernel beyond the language: barriers, shuffles and votes, atomics, arithmetic, assert.
// Names and meanings are those of the CUDA C++ Programming Guide (10, C++ Language Extensions) and the CUDA Math API.
#pragma once

// ---- waiting for one another ----------------------------------------------------------------------------------

static inline void __syncthreads() { stockade::block_barrier(); }
static inline int __syncthreads_count(int predicate)
{
    stockade::here->votes += predicate != 0;
    stockade::block_barrier();
    return (int)stockade::here->vote_result;
}
static inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
static inline int __syncthreads_and(int predicate) { return __syncthreads_count(!predicate) == 0; }
static inline void __syncwarp(unsigned mask = ~0u) { stockade::warp_collective(mask, stockade::SYNC, 0, 0); }

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __threadfence(); }
static inline void __threadfence_system() { __threadfence(); }

namespace stockade {

template <class T> static inline T shuffle(unsigned mask, T value, unsigned from)
{
    static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "shuffles move numbers of at most 8 bytes");
    uint64_t give = 0;
    memcpy(&give, &value, sizeof value);
    const uint64_t got = warp_collective(mask, EXCHANGE, give, from % LANES);
    memcpy(&value, &got, sizeof value);
    return value;
}

static inline int lane() { return (int)(thread_number() % LANES); }
static inline int part_begin(int width) { return lane() & ~(width - 1); }

}  // namespace stockade

template <class T> static inline T __shfl_sync(unsigned mask, T value, int from, int width = warpSize)
{
    return stockade::shuffle(mask, value, (unsigned)(stockade::part_begin(width) + (from & (width - 1))));
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize)
{
    const int from = stockade::lane() - (int)delta;
    return stockade::shuffle(mask, value, (unsigned)(from < stockade::part_begin(width) ? stockade::lane() : from));
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize)
{
    const int from = stockade::lane() + (int)delta, end = stockade::part_begin(width) + width;
    return stockade::shuffle(mask, value, (unsigned)(from >= end ? stockade::lane() : from));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize)
{
    const int from = stockade::lane() ^ bits, end = stockade::part_begin(width) + width;
    return stockade::shuffle(mask, value, (unsigned)(from >= end ? stockade::lane() : from));
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    return (unsigned)stockade::warp_collective(mask, stockade::VOTE, predicate != 0, 0);
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
// Lanes take turns here, so none is ever active together with another one: a truthful, if lonely, answer.
static inline unsigned __activemask() { return 1u << stockade::lane(); }

// ---- atomics: relaxed, as CUDA's are --------------------------------------------------------------------------

namespace stockade {

template <class T> struct Same { using type = T; };  // a parameter that takes part in no deduction: literals convert

template <class T, class F> static inline T atomic_update(T *address, F &&next)
{
    using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    static_assert(sizeof(T) == sizeof(Bits), "atomics are for 4 and 8 bytes");
    Bits *cell = (Bits *)address, old = __atomic_load_n(cell, __ATOMIC_RELAXED), fresh;
    T value;
    do {
        memcpy(&value, &old, sizeof value);
        const T updated = next(value);
        memcpy(&fresh, &updated, sizeof fresh);
    } while (!__atomic_compare_exchange_n(cell, &old, fresh, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return value;
}

}  // namespace stockade

#define STOCKADE_ATOMIC(name, expression)                                                              \
    template <class T> static inline T name(T *address, typename stockade::Same<T>::type value)        \
    {                                                                                                  \
        return stockade::atomic_update(address, [=](T old) -> T { (void)value; return (T)(expression); }); \
    }                                                                                                  \
    template <class T> static inline T name##_block(T *address, typename stockade::Same<T>::type value) \
    {                                                                                                  \
        return name(address, value);                                                                   \
    }                                                                                                  \
    template <class T> static inline T name##_system(T *address, typename stockade::Same<T>::type value) \
    {                                                                                                  \
        return name(address, value);                                                                   \
    }
STOCKADE_ATOMIC(atomicAdd, old + value)
STOCKADE_ATOMIC(atomicSub, old - value)
STOCKADE_ATOMIC(atomicExch, value)
STOCKADE_ATOMIC(atomicMin, value < old ? value : old)
STOCKADE_ATOMIC(atomicMax, value > old ? value : old)
STOCKADE_ATOMIC(atomicAnd, old & value)
STOCKADE_ATOMIC(atomicOr, old | value)
STOCKADE_ATOMIC(atomicXor, old ^ value)
STOCKADE_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
STOCKADE_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef STOCKADE_ATOMIC
template <class T>
static inline T atomicCAS(T *address, typename stockade::Same<T>::type compare, typename stockade::Same<T>::type value)
{
    return stockade::atomic_update(address, [=](T old) { return memcmp(&old, &compare, sizeof old) ? old : value; });
}

// ---- integers and bits ----------------------------------------------------------------------------------------

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x)
{
    unsigned result = 0;
    for (int bit = 0; bit < 32; bit++)
        result |= (x >> bit & 1u) << (31 - bit);
    return result;
}
static inline unsigned long long __brevll(unsigned long long x)
{
    return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
static inline int __mul24(int a, int b) { return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8)); }
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __sad(int a, int b, unsigned c) { return c + (unsigned)(a < b ? b - a : a - b); }
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector)
{
    const unsigned long long bytes = (unsigned long long)high << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned select = selector >> 4 * i & 15u;
        unsigned byte = (unsigned)(bytes >> 8 * (select & 7u)) & 0xffu;
        if (select & 8u)  // replicate the sign
            byte = byte & 0x80u ? 0xffu : 0u;
        result |= byte << 8 * i;
    }
    return result;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((unsigned long long)high << 32 | low) << (shift & 31u) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31u));
}

namespace stockade {
template <class To, class From> static inline To bits(From value)
{
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
}  // namespace stockade
static inline float __int_as_float(int x) { return stockade::bits<float>(x); }
static inline int __float_as_int(float x) { return stockade::bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return stockade::bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return stockade::bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return stockade::bits<double>(x); }
static inline long long __double_as_longlong(double x) { return stockade::bits<long long>(x); }

#define STOCKADE_MIN_MAX(type)                                             \
    static inline type min(type a, type b) { return b < a ? b : a; }       \
    static inline type max(type a, type b) { return a < b ? b : a; }
STOCKADE_MIN_MAX(int)
STOCKADE_MIN_MAX(unsigned)
STOCKADE_MIN_MAX(long)
STOCKADE_MIN_MAX(unsigned long)
STOCKADE_MIN_MAX(long long)
STOCKADE_MIN_MAX(unsigned long long)
#undef STOCKADE_MIN_MAX
static inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
static inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
static inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
static inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
static inline float min(float a, float b) { return fminf(a, b); }  // of a number and a NaN: the number
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// ---- floating point -------------------------------------------------------------------------------------------
// Rounded to nearest everywhere. The fast intrinsics (`__expf`) are the exact functions: closer than CUDA's, never
// further. Some of the names belong to newer C libraries, so they are macros.

namespace stockade {
static inline float rsqrt_float(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt_double(double x) { return 1.0 / sqrt(x); }
static inline float sinpi_float(float x) { return sinf((float)M_PI * x); }
static inline float cospi_float(float x) { return cosf((float)M_PI * x); }
}  // namespace stockade
#define rsqrtf(x) stockade::rsqrt_float(x)
#define rsqrt(x) stockade::rsqrt_double(x)
#define sinpif(x) stockade::sinpi_float(x)
#define cospif(x) stockade::cospi_float(x)
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }  // and 0 for NaN
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
#define STOCKADE_ROUNDED(type, letter, root, fused)                                              \
    static inline type __##letter##add_rn(type a, type b) { return a + b; }                      \
    static inline type __##letter##sub_rn(type a, type b) { return a - b; }                      \
    static inline type __##letter##mul_rn(type a, type b) { return a * b; }                      \
    static inline type __##letter##div_rn(type a, type b) { return a / b; }                      \
    static inline type __##letter##rcp_rn(type a) { return 1 / a; }                              \
    static inline type __##letter##sqrt_rn(type a) { return root(a); }
STOCKADE_ROUNDED(float, f, sqrtf, fmaf)
STOCKADE_ROUNDED(double, d, sqrt, fma)
#undef STOCKADE_ROUNDED
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

namespace stockade {
// CUDA's conversions saturate and make 0 of NaN; in C++ the same is undefined.
template <class To, class From> static inline To saturated(From x)
{
    constexpr To low = std::is_signed_v<To> ? (To)((To)1 << (sizeof(To) * 8 - 1)) : (To)0;
    constexpr To high = (To)~low;
    if (!(x == x))
        return 0;
    if (x <= (From)low)
        return low;
    return x >= (From)high ? high : (To)x;
}
}  // namespace stockade
static inline int __float2int_rn(float x) { return stockade::saturated<int>(nearbyintf(x)); }
static inline int __float2int_rz(float x) { return stockade::saturated<int>(truncf(x)); }
static inline int __float2int_rd(float x) { return stockade::saturated<int>(floorf(x)); }
static inline int __float2int_ru(float x) { return stockade::saturated<int>(ceilf(x)); }
static inline unsigned __float2uint_rn(float x) { return stockade::saturated<unsigned>(nearbyintf(x)); }
static inline unsigned __float2uint_rz(float x) { return stockade::saturated<unsigned>(truncf(x)); }
static inline int __double2int_rn(double x) { return stockade::saturated<int>(nearbyint(x)); }
static inline int __double2int_rz(double x) { return stockade::saturated<int>(trunc(x)); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline double __int2double_rn(int x) { return (double)x; }

// ---- memory, time, the end ------------------------------------------------------------------------------------

template <class T> static inline T __ldg(const T *address) { return *address; }
template <class T> static inline T __ldcs(const T *address) { return *address; }
template <class T> static inline void __stcs(T *address, T value) { *address = value; }
static inline long long clock64()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}
#define clock() clock64()
static inline void __nanosleep(unsigned) {}
static inline void __trap() { stockade::stop_kernel(stockade::LAUNCH_FAILED, stockade::TRAP); }
static inline void __brkpt() {}

namespace stockade {
[[noreturn, maybe_unused]] static void assertion_failed(const char *text, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion `%s` failed in block (%u,%u,%u), thread (%u,%u,%u)\n", file, line, text,
            blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    stop_kernel(ASSERT, NO_DETAIL);
}
}  // namespace stockade
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) ((condition) ? (void)0 : stockade::assertion_failed(#condition, __FILE__, __LINE__))
#endif
