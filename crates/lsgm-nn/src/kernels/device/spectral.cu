// Power iteration for the largest singular values of many matrices at a time, each the work of a block.
//
// `pieces` has six numbers for each matrix: the addresses of its elements, of the vector that it starts from (zeros for a
// fresh start), of the left and of the right singular vector that it comes to; its rows and columns.

// Vectors shorter than this are divided by it in place of their length.
#define SHORTEST 1e-3

// Threads that work on one row.
#define LANES 32

// Scale `x` to length 1.
DEVICE void to_unit_length(float *x, int length) {
    double own = 0.0;
    for (int i = threadIdx.x; i < length; i += THREADS) {
        own += (double)x[i] * x[i];
    }
    float scale = (float)(1.0 / fmax(sqrt(sum_over(own, THREADS)), SHORTEST));
    for (int i = threadIdx.x; i < length; i += THREADS) {
        x[i] *= scale;
    }
    __syncthreads();
}

KERNEL power_iteration(const unsigned long long *pieces, int iterations) {
    const unsigned long long *piece = pieces + 6 * blockIdx.x;
    const float *w = (const float *)piece[0], *start = (const float *)piece[1];
    float *u = (float *)piece[2], *v = (float *)piece[3];
    int rows = (int)piece[4], columns = (int)piece[5];
    double own = 0.0;
    for (int i = threadIdx.x; i < rows; i += THREADS) {
        own += fabsf(start[i]);
    }
    bool fresh = sum_over(own, THREADS) == 0.0;
    for (int i = threadIdx.x; i < rows; i += THREADS) {
        u[i] = fresh ? (float)(1.0 / sqrt((double)rows)) : start[i];
    }
    __syncthreads();
    for (int iteration = 0; iteration < iterations; iteration++) {
        for (int j = threadIdx.x; j < columns; j += THREADS) {
            float sum = 0.0f;
            _Pragma("unroll 8")
            for (int i = 0; i < rows; i++) {
                sum += w[(long long)i * columns + j] * u[i];
            }
            v[j] = sum;
        }
        __syncthreads();
        to_unit_length(v, columns);
        for (int first = 0; first < rows; first += THREADS / LANES) {
            int row = first + threadIdx.x / LANES;
            double product = 0.0;
            _Pragma("unroll 8")
            for (int j = threadIdx.x % LANES; row < rows && j < columns; j += LANES) {
                product += (double)w[(long long)row * columns + j] * v[j];
            }
            product = sum_over(product, LANES);
            if (row < rows && threadIdx.x % LANES == 0) {
                u[row] = (float)product;
            }
        }
        __syncthreads();
        to_unit_length(u, rows);
    }
}
