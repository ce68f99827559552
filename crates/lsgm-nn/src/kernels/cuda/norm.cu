// Normalisation over sets of elements, then scale, shift and SiLU (if `silu` is not 0), of x: [batch, channels, positions].
//
// Group norm (`groups` > 0): a set is a group of channels of one item, and its elements lie side by side. Batch norm
// (`groups` is 0): a set is a channel of all items. A block of 256 threads works on one set, or on one channel.

struct Sets {
    int batch, channels, positions, groups;
};

static __device__ long long length_of(Sets s) {
    return s.groups > 0 ? (long long)(s.channels / s.groups) * s.positions : (long long)s.batch * s.positions;
}

// Where element `j` of a set lies.
static __device__ long long place(Sets s, long long set, long long j) {
    return s.groups > 0 ? set * length_of(s) + j
                        : ((j / s.positions) * s.channels + set) * s.positions + j % s.positions;
}

// The channel of element `j` of a set.
static __device__ int channel_of(Sets s, long long set, long long j) {
    return s.groups > 0 ? (int)(set % s.groups) * (s.channels / s.groups) + (int)(j / s.positions) : (int)set;
}

// The sum of `own` over the threads of a block, for all of them.
static __device__ double sum_for_all(double own) {
    __shared__ double sums[256];
    __syncthreads();
    sums[threadIdx.x] = own;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
    }
    __syncthreads();
    return sums[0];
}

static __device__ float slope_of_silu(float z) {
    float gate = 1.0f / (1.0f + expf(-z));
    return gate * (1.0f + z * (1.0f - gate));
}

// `stats` gets the mean and the reciprocal standard deviation of each set.
extern "C" __global__ void forward(
    const float *x, const float *gamma, const float *beta, float *y, float *stats, int batch, int channels, int positions,
    int groups, float eps, int silu) {
    Sets s = {batch, channels, positions, groups};
    long long set = blockIdx.x, n = length_of(s);
    double own = 0.0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        own += x[place(s, set, j)];
    }
    float mean = (float)(sum_for_all(own) / n);
    own = 0.0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        float centred = x[place(s, set, j)] - mean;
        own += (double)centred * centred;
    }
    float rstd = (float)(1.0 / sqrt(sum_for_all(own) / n + eps));
    if (threadIdx.x == 0) {
        stats[2 * set] = mean;
        stats[2 * set + 1] = rstd;
    }
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        long long i = place(s, set, j);
        int c = channel_of(s, set, j);
        float z = gamma[c] * ((x[i] - mean) * rstd) + beta[c];
        y[i] = silu ? z / (1.0f + expf(-z)) : z;
    }
}

// The gradient of x, given that of y.
extern "C" __global__ void data_gradient(
    const float *x, const float *gamma, const float *beta, const float *stats, const float *gy, float *dx, int batch,
    int channels, int positions, int groups, int silu) {
    Sets s = {batch, channels, positions, groups};
    long long set = blockIdx.x, n = length_of(s);
    float mean = stats[2 * set], rstd = stats[2 * set + 1];
    double sum = 0.0, product = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        for (long long j = threadIdx.x; j < n; j += blockDim.x) {
            long long i = place(s, set, j);
            int c = channel_of(s, set, j);
            float h = (x[i] - mean) * rstd;
            float g = gy[i] * gamma[c] * (silu ? slope_of_silu(gamma[c] * h + beta[c]) : 1.0f);
            if (pass == 0) {
                sum += g;
                product += (double)g * h;
            } else {
                dx[i] = rstd * (g - (float)sum - h * (float)product);
            }
        }
        if (pass == 0) {
            sum = sum_for_all(sum) / n;
            product = sum_for_all(product) / n;
        }
    }
}

// The gradients of gamma and beta: a block for each channel.
extern "C" __global__ void parameter_gradients(
    const float *x, const float *gamma, const float *beta, const float *stats, const float *gy, float *dgamma,
    float *dbeta, int batch, int channels, int positions, int groups, int silu) {
    long long c = blockIdx.x;
    double scale = 0.0, shift = 0.0;
    for (long long j = threadIdx.x; j < (long long)batch * positions; j += blockDim.x) {
        long long item = j / positions, i = (item * channels + c) * positions + j % positions;
        long long set = groups > 0 ? item * groups + c / (channels / groups) : c;
        float h = (x[i] - stats[2 * set]) * stats[2 * set + 1];
        float g = gy[i] * (silu ? slope_of_silu(gamma[c] * h + beta[c]) : 1.0f);
        scale += (double)g * h;
        shift += g;
    }
    scale = sum_for_all(scale);
    shift = sum_for_all(shift);
    if (threadIdx.x == 0) {
        dgamma[c] = (float)scale;
        dbeta[c] = (float)shift;
    }
}
