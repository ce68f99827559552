// An optimizer's step over all parameters, and the norm of all gradients. `../optimizer.rs` has the same for the CPU.
//
// `pieces` has six numbers for each parameter: the addresses of its elements, of their gradients (or 0), of both
// moments, of the moving average (or 0), and how many there are. Each block of threads works on `ELEMENTS` elements of
// one parameter; `blocks` has two numbers for each block: which parameter, and which of its runs of elements.

#define ELEMENTS 16384

struct Run {
    const unsigned long long *piece;
    unsigned long long first, end;
};

DEVICE Run run_of_block(const unsigned long long *pieces, const unsigned *blocks) {
    Run run;
    run.piece = pieces + 6ull * blocks[2 * blockIdx.x];
    run.first = (unsigned long long)ELEMENTS * blocks[2 * blockIdx.x + 1];
    run.end = run.first + ELEMENTS < run.piece[5] ? run.first + ELEMENTS : run.piece[5];
    return run;
}

// Adam and AdamW (`adamax` is 0), or Adamax.
KERNEL step(
    const unsigned long long *pieces, const unsigned *blocks, const double *gradient_scale, int adamax, float beta1,
    float rest1, float beta2, float rest2, float eps, float rate, float unbias, float keep, float decay,
    float ema_decay) {
    Run run = run_of_block(pieces, blocks);
    float *p = (float *)run.piece[0];
    const float *g = (const float *)run.piece[1];
    float *m = (float *)run.piece[2], *v = (float *)run.piece[3], *average = (float *)run.piece[4];
    float scale = (float)*gradient_scale;
    for (unsigned long long i = run.first + threadIdx.x; i < run.end; i += THREADS) {
        float x = p[i];
        if (g) {
            float gradient = fmaf(g[i], scale, decay * x);
            float first = fmaf(beta1, m[i], rest1 * gradient);
            float second;
            if (adamax) {
                second = fmaxf(beta2 * v[i], fabsf(gradient) + eps);
                x = x - rate * first / second;
            } else {
                second = fmaf(beta2, v[i], rest2 * gradient * gradient);
                x = x * keep - rate * first / fmaf(sqrtf(second), unbias, eps);
            }
            m[i] = first;
            v[i] = second;
            p[i] = x;
        }
        if (average) {
            average[i] = fmaf(ema_decay, average[i] - x, x);
        }
    }
}

// The sum of squares of each block's gradients.
KERNEL squares(const unsigned long long *pieces, const unsigned *blocks, double *sums) {
    Run run = run_of_block(pieces, blocks);
    const float *g = (const float *)run.piece[1];
    double own = 0.0;
    for (unsigned long long i = run.first + threadIdx.x; i < run.end; i += THREADS) {
        own += (double)g[i] * (double)g[i];
    }
    double sum = sum_over(own, THREADS);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
    }
}

// The root of the sum of `n` numbers, by one block.
KERNEL root(const double *sums, int n, double *norm) {
    double own = 0.0;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        own += sums[i];
    }
    double sum = sum_over(own, THREADS);
    if (threadIdx.x == 0) {
        *norm = sqrt(sum);
    }
}
