// z-scores of windows of 64 samples: out = (in - mean) / standard deviation, and 0 where all samples are equal.
//
// Eight threads share a record and a block holds several records, so that a block of 128 threads reads 16 whole
// windows. Each thread adds up its eight samples and leaves the partial sum in shared memory; after the barrier
// every thread adds the eight partial sums itself, which saves the second barrier a tree would need.
//
// Sums are double: a window of 1e6 +- 1 has no usable mean in float. The 256 bytes a record moves over the bus
// cost more than its 130 double additions, even where double is 64 times slower than float.

constexpr int WINDOW = 64;
constexpr int LANES = 8;                       // threads_per_record in kernel.toml
constexpr int SHARE = WINDOW / LANES;          // samples a thread looks after
constexpr int MAX_BLOCK = 1024;

__device__ double total(const double *partial)
{
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++)
        sum += partial[lane];
    return sum;
}

extern "C" __global__ void zscore(const float *in, float *out, int records)
{
    __shared__ double sums[MAX_BLOCK];
    __shared__ double squares[MAX_BLOCK];

    const int thread = threadIdx.x;
    const int first = thread / LANES * LANES;  // first thread of this thread's record
    const int lane = thread - first;
    const int record = (blockIdx.x * blockDim.x + thread) / LANES;
    const bool present = record < records;     // the rest of the last block still meets the barriers

    double sample[SHARE];
    double sum = 0.0;
    for (int i = 0; i < SHARE; i++) {
        sample[i] = present ? in[record * WINDOW + i * LANES + lane] : 0.0;
        sum += sample[i];
    }
    sums[thread] = sum;
    __syncthreads();

    const double mean = total(&sums[first]) / WINDOW;
    double square = 0.0;
    for (int i = 0; i < SHARE; i++)
        square += (sample[i] - mean) * (sample[i] - mean);
    squares[thread] = square;
    __syncthreads();

    if (!present)
        return;
    const double deviation = sqrt(total(&squares[first]) / WINDOW);
    const double scale = deviation == 0.0 ? 0.0 : 1.0 / deviation;
    for (int i = 0; i < SHARE; i++)
        out[record * WINDOW + i * LANES + lane] = (float)((sample[i] - mean) * scale);
}
