// What every source begins with. Activations are f32 or bf16 (where BF16 is 1) and are computed with in f32.

#ifndef KERNEL
#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ inline
#endif

// Threads of a block, in every kernel.
#define THREADS 256

// What a kernel reads and what it writes never overlap.
#define IN(type) const type *__restrict__
#define OUT(type) type *__restrict__

#if BF16
typedef unsigned short element;

DEVICE float load(element x) {
    return __uint_as_float((unsigned)x << 16);
}

// Rounded to the nearest, ties to even.
DEVICE element store(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (element)(bits >> 16 | 0x40u);
    }
    return (element)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
#else
typedef float element;

DEVICE float load(element x) {
    return x;
}

DEVICE element store(float x) {
    return x;
}
#endif

// What `join` makes of `own` of the `lanes` threads that work together (a power of two), for all of them. Every thread of the
// block takes part.
template <class Value, class Join> DEVICE Value joined_over(Value own, unsigned lanes, Join join) {
    __shared__ Value values[THREADS];
    unsigned lane = threadIdx.x & (lanes - 1);
    __syncthreads();
    values[threadIdx.x] = own;
    for (unsigned half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) {
            values[threadIdx.x] = join(values[threadIdx.x], values[threadIdx.x + half]);
        }
    }
    __syncthreads();
    return values[threadIdx.x - lane];
}

DEVICE double sum_over(double own, unsigned lanes) {
    return joined_over(own, lanes, [](double a, double b) { return a + b; });
}

DEVICE float largest_over(float own, unsigned lanes) {
    return joined_over(own, lanes, [](float a, float b) { return fmaxf(a, b); });
}

// Which of the runs of elements (planes, rows) that `lanes` threads each work on is this thread's.
DEVICE int run_of_thread(unsigned lanes) {
    return (int)(blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes);
}

// Elements that a thread reads before it uses the first: it takes many reads at a time to keep the memory busy.
#define TURNS 4

// `use(j, read(j))` for every `lanes`-th j below `end`, from this thread's lane on.
template <class Value, class Read, class Use>
DEVICE void in_turns(int lanes, int end, Read read, Use use) {
    for (int first = threadIdx.x % lanes; first < end; first += TURNS * lanes) {
        Value values[TURNS];
        for (int turn = 0; turn < TURNS; turn++) {
            int j = first + turn * lanes;
            if (j < end) {
                values[turn] = read(j);
            }
        }
        for (int turn = 0; turn < TURNS; turn++) {
            int j = first + turn * lanes;
            if (j < end) {
                use(j, values[turn]);
            }
        }
    }
}

// Two numbers that are read together.
struct Pair {
    float a, b;
};

// Which element this thread works on, where there is one thread for each.
DEVICE long long element_of_thread() {
    return (long long)blockIdx.x * THREADS + threadIdx.x;
}

DEVICE float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

DEVICE float slope_of_silu(float z) {
    float gate = sigmoid(z);
    return gate * (1.0f + z * (1.0f - gate));
}
