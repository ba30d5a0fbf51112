// CUDA's built-in vector types, with the sizes and alignments of the CUDA C++ Programming Guide (table
// "Alignment Requirements"), so that structures and buffers have the same layout on both devices.
#pragma once

#define STOCKADE_VECTOR(scalar, name, one, two, four)                                                       \
    struct alignas(one) name##1 { scalar x; };                                                              \
    struct alignas(two) name##2 { scalar x, y; };                                                           \
    struct alignas(one) name##3 { scalar x, y, z; };                                                        \
    struct alignas(four) name##4 { scalar x, y, z, w; };                                                    \
    static inline name##1 make_##name##1(scalar x) { return {x}; }                                          \
    static inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                             \
    static inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                \
    static inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

STOCKADE_VECTOR(signed char, char, 1, 2, 4)
STOCKADE_VECTOR(unsigned char, uchar, 1, 2, 4)
STOCKADE_VECTOR(short, short, 2, 4, 8)
STOCKADE_VECTOR(unsigned short, ushort, 2, 4, 8)
STOCKADE_VECTOR(int, int, 4, 8, 16)
STOCKADE_VECTOR(unsigned int, uint, 4, 8, 16)
STOCKADE_VECTOR(long, long, 8, 16, 16)
STOCKADE_VECTOR(unsigned long, ulong, 8, 16, 16)
STOCKADE_VECTOR(long long, longlong, 8, 16, 16)
STOCKADE_VECTOR(unsigned long long, ulonglong, 8, 16, 16)
STOCKADE_VECTOR(float, float, 4, 8, 16)
STOCKADE_VECTOR(double, double, 8, 16, 16)
#undef STOCKADE_VECTOR

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
