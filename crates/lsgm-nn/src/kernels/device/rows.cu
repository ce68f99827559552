// What is done to rows of x: [rows, width]. A row is the work of `lanes` threads. `per` rows after one another, a
// segment, share factors [segments, width]: parameters (f32), or, where `modulated` is not 0, activations, 1 more than
// they say.

DEVICE float factor(const void *factors, long long i, int modulated) {
    return modulated ? 1.0f + load(((const element *)factors)[i]) : ((const float *)factors)[i];
}

DEVICE float summand(const void *shifts, long long i, int modulated) {
    return modulated ? load(((const element *)shifts)[i]) : ((const float *)shifts)[i];
}

// Layer norm, or the norm of root mean squares (`centred` is 0), then scale and, where there is one, shift. `stats`
// gets mean and reciprocal standard deviation of each row.
KERNEL row_norm(
    IN(element) x, IN(void) scale, IN(void) shift, OUT(element) y, OUT(float) stats, int rows, int width, int per,
    int lanes, float eps, int centred, int modulated) {
    long long row = run_of_thread(lanes);
    int end = row < rows ? width : 0;
    const element *at = x + row * width;
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end && centred; j += lanes) {
        own += load(at[j]);
    }
    float mean = (float)(sum_over(own, lanes) / width);
    own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        float away = load(at[j]) - mean;
        own += (double)away * away;
    }
    float rstd = (float)(1.0 / sqrt(sum_over(own, lanes) / width + eps));
    if (end > 0 && threadIdx.x % lanes == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        long long f = row / per * width + j;
        float z = (load(at[j]) - mean) * rstd * factor(scale, f, modulated);
        y[row * width + j] = store(shift ? z + summand(shift, f, modulated) : z);
    }
}

// The gradient of x, given that of y.
KERNEL row_data_gradient(
    IN(element) x, IN(void) scale, IN(float) stats, IN(element) gy, OUT(element) dx, int rows, int width, int per,
    int lanes, int centred, int modulated) {
    long long row = run_of_thread(lanes);
    int end = row < rows ? width : 0;
    float mean = end ? stats[2 * row] : 0.0f, rstd = end ? stats[2 * row + 1] : 0.0f;
    double sum = 0.0, product = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        float h = (load(x[row * width + j]) - mean) * rstd;
        float g = load(gy[row * width + j]) * factor(scale, row / per * width + j, modulated);
        sum += g;
        product += (double)g * h;
    }
    float offset = centred ? (float)(sum_over(sum, lanes) / width) : 0.0f;
    float pull = (float)(sum_over(product, lanes) / width);
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        float h = (load(x[row * width + j]) - mean) * rstd;
        float g = load(gy[row * width + j]) * factor(scale, row / per * width + j, modulated);
        dx[row * width + j] = store(rstd * (g - offset - h * pull));
    }
}

// y = x + gate * branch.
KERNEL gated_rows(
    IN(element) x, IN(element) branch, IN(element) gate, OUT(element) y, int rows, int width, int per, int lanes) {
    long long row = run_of_thread(lanes);
    UNROLLED
    for (int j = threadIdx.x % lanes; row < rows && j < width; j += lanes) {
        long long i = row * width + j;
        y[i] = store(load(x[i]) + load(gate[row / per * width + j]) * load(branch[i]));
    }
}

// What is multiplied with gates on the way back: y = gate * x.
KERNEL scaled_rows(IN(element) x, IN(element) gate, OUT(element) y, int rows, int width, int per, int lanes) {
    long long row = run_of_thread(lanes);
    UNROLLED
    for (int j = threadIdx.x % lanes; row < rows && j < width; j += lanes) {
        y[row * width + j] = store(load(gate[row / per * width + j]) * load(x[row * width + j]));
    }
}

// y = x + bias of its column.
KERNEL add_row(IN(element) x, IN(float) bias, OUT(element) y, int rows, int width, int lanes) {
    long long row = run_of_thread(lanes);
    UNROLLED
    for (int j = threadIdx.x % lanes; row < rows && j < width; j += lanes) {
        y[row * width + j] = store(load(x[row * width + j]) + bias[j]);
    }
}

// Columns that a block takes; its other threads share their rows.
#define COLUMNS 32

// Sums over rows of g, and of g times x, which is normalised first where there are `stats`. Each segment is cut into
// `parts`, of which each has sums of its own: [segments * parts, width, 2]. A block takes COLUMNS columns of a part.
KERNEL column_sums(IN(element) g, IN(element) x, IN(float) stats, OUT(double) table, int width, int per, int parts) {
    __shared__ double sums[2][THREADS];
    int tiles = (width + COLUMNS - 1) / COLUMNS;
    int column = (int)(blockIdx.x % tiles) * COLUMNS + threadIdx.x % COLUMNS;
    long long part = blockIdx.x / tiles, segment = part / parts;
    int length = (per + parts - 1) / parts, first = (int)(part % parts) * length;
    int last = first + length < per ? first + length : per;
    double sum = 0.0, product = 0.0;
    UNROLLED
    for (int r = first + threadIdx.x / COLUMNS; column < width && r < last; r += THREADS / COLUMNS) {
        long long row = segment * per + r;
        float slope = load(g[row * width + column]);
        float value = x ? load(x[row * width + column]) : 0.0f;
        sum += slope;
        product += (double)slope * (stats ? (value - stats[2 * row]) * stats[2 * row + 1] : value);
    }
    sums[0][threadIdx.x] = sum;
    sums[1][threadIdx.x] = product;
    __syncthreads();
    if (threadIdx.x < COLUMNS && column < width) {
        for (int i = threadIdx.x + COLUMNS; i < THREADS; i += COLUMNS) {
            sum += sums[0][i];
            product += sums[1][i];
        }
        table[2 * (part * width + column)] = sum;
        table[2 * (part * width + column) + 1] = product;
    }
}

// The sums of all parts of each segment: products and sums, each where it is wanted, as f32 or, where `modulated` is
// not 0, as activations.
KERNEL column_totals(
    IN(double) table, OUT(void) products, OUT(void) sums, int segments, int width, int parts, int modulated) {
    long long i = element_of_thread();
    if (i >= (long long)segments * width) {
        return;
    }
    double sum = 0.0, product = 0.0;
    UNROLLED
    for (int part = 0; part < parts; part++) {
        long long at = (i / width * parts + part) * width + i % width;
        sum += table[2 * at];
        product += table[2 * at + 1];
    }
    if (products && modulated) {
        ((element *)products)[i] = store((float)product);
    } else if (products) {
        ((float *)products)[i] = (float)product;
    }
    if (sums && modulated) {
        ((element *)sums)[i] = store((float)sum);
    } else if (sums) {
        ((float *)sums)[i] = (float)sum;
    }
}

// softmax(factor * x), or its logarithm.
KERNEL softmax(IN(element) x, OUT(element) y, int rows, int width, int lanes, float factor, int log) {
    long long row = run_of_thread(lanes);
    int end = row < rows ? width : 0;
    float largest = -__uint_as_float(0x7f800000u);
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        largest = fmaxf(largest, factor * load(x[row * width + j]));
    }
    largest = largest_over(largest, lanes);
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        own += expf(factor * load(x[row * width + j]) - largest);
    }
    float sum = (float)sum_over(own, lanes), log_sum = logf(sum);
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        float below = factor * load(x[row * width + j]) - largest;
        y[row * width + j] = store(log ? below - log_sum : expf(below) / sum);
    }
}

// The gradient of x, given y and its gradient.
KERNEL softmax_gradient(
    IN(element) y, IN(element) gy, OUT(element) dx, int rows, int width, int lanes, float factor, int log) {
    long long row = run_of_thread(lanes);
    int end = row < rows ? width : 0;
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        float g = load(gy[row * width + j]);
        own += log ? (double)g : (double)g * load(y[row * width + j]);
    }
    float sum = (float)sum_over(own, lanes);
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        float g = load(gy[row * width + j]), value = load(y[row * width + j]);
        dx[row * width + j] = store(factor * (log ? g - expf(value) * sum : value * (g - sum)));
    }
}

// w = g * v / (|v| + eps) of each row. `norms` gets the lengths of the rows.
KERNEL weight_norm(
    IN(float) v, IN(float) g, OUT(float) w, OUT(double) norms, int rows, int width, int lanes, float eps) {
    long long row = run_of_thread(lanes);
    int end = row < rows ? width : 0;
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        own += (double)v[row * width + j] * v[row * width + j];
    }
    double norm = sqrt(sum_over(own, lanes));
    float scale = end ? (float)(g[row] / (norm + eps)) : 0.0f;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        w[row * width + j] = v[row * width + j] * scale;
    }
    if (end > 0 && threadIdx.x % lanes == 0) {
        norms[row] = norm;
    }
}

// The gradients of v and g, given that of w. A row of zeros has a length without a slope, for which 0 is taken.
KERNEL weight_norm_gradients(
    IN(float) v, IN(float) g, IN(double) norms, IN(float) gw, OUT(float) dv, OUT(float) dg, int rows, int width,
    int lanes, float eps) {
    long long row = run_of_thread(lanes);
    int end = row < rows ? width : 0;
    double own = 0.0;
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        own += (double)v[row * width + j] * gw[row * width + j];
    }
    double inner = sum_over(own, lanes), norm = end ? norms[row] : 1.0, scale = end ? g[row] / (norm + eps) : 0.0;
    double pull = norm == 0.0 ? 0.0 : scale * inner / (norm * (norm + eps));
    UNROLLED
    for (int j = threadIdx.x % lanes; j < end; j += lanes) {
        dv[row * width + j] = gw[row * width + j] * (float)scale - v[row * width + j] * (float)pull;
    }
    if (end > 0 && threadIdx.x % lanes == 0) {
        dg[row] = (float)(inner / (norm + eps));
    }
}
