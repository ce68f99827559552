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
    int row = run_of_thread(lanes), end = row < rows ? width : 0;
    long long start = (long long)row * width, factors = (long long)(row / per) * width;
    auto read = [&](int j) { return load(x[start + j]); };
    double own = 0.0;
    in_turns<float>(lanes, centred ? end : 0, read, [&](int, float value) { own += value; });
    float mean = (float)(sum_over(own, lanes) / width);
    own = 0.0;
    in_turns<float>(lanes, end, read, [&](int, float value) { own += (double)(value - mean) * (value - mean); });
    float rstd = (float)(1.0 / sqrt(sum_over(own, lanes) / width + eps));
    if (end > 0 && threadIdx.x % lanes == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = rstd;
    }
    in_turns<float>(lanes, end, read, [&](int j, float value) {
        float z = (value - mean) * rstd * factor(scale, factors + j, modulated);
        y[start + j] = store(shift ? z + summand(shift, factors + j, modulated) : z);
    });
}

// The gradient of x, given that of y.
KERNEL row_norm_data_gradient(
    IN(element) x, IN(void) scale, IN(float) stats, IN(element) gy, OUT(element) dx, int rows, int width, int per,
    int lanes, int centred, int modulated) {
    int row = run_of_thread(lanes), end = row < rows ? width : 0;
    long long start = (long long)row * width, factors = (long long)(row / per) * width;
    float mean = end ? stats[2 * row] : 0.0f, rstd = end ? stats[2 * row + 1] : 0.0f;
    auto read = [&](int j) {
        return Pair{(load(x[start + j]) - mean) * rstd, load(gy[start + j]) * factor(scale, factors + j, modulated)};
    };
    double sum = 0.0, product = 0.0;
    in_turns<Pair>(lanes, end, read, [&](int, Pair value) {
        sum += value.b;
        product += (double)value.b * value.a;
    });
    sum = sum_over(sum, lanes);
    product = sum_over(product, lanes);
    float offset = centred ? (float)(sum / width) : 0.0f, pull = (float)(product / width);
    in_turns<Pair>(lanes, end, read, [&](int j, Pair value) {
        dx[start + j] = store(rstd * (value.b - offset - value.a * pull));
    });
}

// y = x + gate * branch.
KERNEL gated_rows(
    IN(element) x, IN(element) branch, IN(element) gate, OUT(element) y, int rows, int width, int per, int lanes) {
    int row = run_of_thread(lanes);
    long long start = (long long)row * width, factors = (long long)(row / per) * width;
    auto read = [&](int j) { return Pair{load(x[start + j]), load(gate[factors + j]) * load(branch[start + j])}; };
    in_turns<Pair>(lanes, row < rows ? width : 0, read, [&](int j, Pair value) {
        y[start + j] = store(value.a + value.b);
    });
}

// What is multiplied with gates on the way back: y = gate * x.
KERNEL scaled_rows(IN(element) x, IN(element) gate, OUT(element) y, int rows, int width, int per, int lanes) {
    int row = run_of_thread(lanes);
    long long start = (long long)row * width, factors = (long long)(row / per) * width;
    auto read = [&](int j) { return load(gate[factors + j]) * load(x[start + j]); };
    in_turns<float>(lanes, row < rows ? width : 0, read, [&](int j, float value) { y[start + j] = store(value); });
}

// y = x + bias of its column.
KERNEL add_row(IN(element) x, IN(float) bias, OUT(element) y, int rows, int width, int lanes) {
    int row = run_of_thread(lanes);
    long long start = (long long)row * width;
    auto read = [&](int j) { return load(x[start + j]) + bias[j]; };
    in_turns<float>(lanes, row < rows ? width : 0, read, [&](int j, float value) { y[start + j] = store(value); });
}

// Columns that a block takes; its other threads share their rows.
#define COLUMNS 32

// Sums over rows of g, and of g times x, which is normalised first where there are `stats`. Each segment is cut into
// `parts`, of which each has sums of its own: [segments * parts, width, 2]. A block takes COLUMNS columns of a part.
KERNEL column_sums(
    IN(element) g, IN(element) x, IN(float) stats, OUT(double) table, int width, int per, int parts) {
    __shared__ double sums[2][THREADS];
    int tiles = (width + COLUMNS - 1) / COLUMNS;
    int column = (int)(blockIdx.x % tiles) * COLUMNS + threadIdx.x % COLUMNS;
    int part = (int)(blockIdx.x / tiles), segment = part / parts;
    int length = (per + parts - 1) / parts, first = part % parts * length;
    int last = first + length < per ? first + length : per;
    double sum = 0.0, product = 0.0;
    _Pragma("unroll 4")
    for (int r = first + threadIdx.x / COLUMNS; column < width && r < last; r += THREADS / COLUMNS) {
        long long row = (long long)segment * per + r;
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
        long long at = 2 * ((long long)part * width + column);
        table[at] = sum;
        table[at + 1] = product;
    }
}

// The sums of all parts of each segment: products and sums, each where it is wanted, as f32 or, where `modulated` is
// not 0, as activations.
KERNEL column_totals(
    IN(double) table, OUT(void) products, OUT(void) sums, int segments, int width, int parts, int as_elements) {
    long long i = element_of_thread();
    if (i >= (long long)segments * width) {
        return;
    }
    double sum = 0.0, product = 0.0;
    _Pragma("unroll 8")
    for (int part = 0; part < parts; part++) {
        long long at = (i / width * parts + part) * width + i % width;
        sum += table[2 * at];
        product += table[2 * at + 1];
    }
    if (products && as_elements) {
        ((element *)products)[i] = store((float)product);
    } else if (products) {
        ((float *)products)[i] = (float)product;
    }
    if (sums && as_elements) {
        ((element *)sums)[i] = store((float)sum);
    } else if (sums) {
        ((float *)sums)[i] = (float)sum;
    }
}

// softmax(factor * x), or its logarithm.
KERNEL softmax(IN(element) x, OUT(element) y, int rows, int width, int lanes, float factor, int log) {
    int row = run_of_thread(lanes), end = row < rows ? width : 0;
    long long start = (long long)row * width;
    auto read = [&](int j) { return factor * load(x[start + j]); };
    float largest = -__uint_as_float(0x7f800000u);
    in_turns<float>(lanes, end, read, [&](int, float value) { largest = fmaxf(largest, value); });
    largest = largest_over(largest, lanes);
    double own = 0.0;
    in_turns<float>(lanes, end, read, [&](int, float value) { own += expf(value - largest); });
    float sum = (float)sum_over(own, lanes), log_sum = logf(sum);
    in_turns<float>(lanes, end, read, [&](int j, float value) {
        float below = value - largest;
        y[start + j] = store(log ? below - log_sum : expf(below) / sum);
    });
}

// The gradient of x, given y and its gradient.
KERNEL softmax_gradient(
    IN(element) y, IN(element) gy, OUT(element) dx, int rows, int width, int lanes, float factor, int log) {
    int row = run_of_thread(lanes), end = row < rows ? width : 0;
    long long start = (long long)row * width;
    auto read = [&](int j) { return Pair{load(y[start + j]), load(gy[start + j])}; };
    double own = 0.0;
    in_turns<Pair>(lanes, end, read, [&](int, Pair value) { own += (double)value.b * (log ? 1.0f : value.a); });
    float sum = (float)sum_over(own, lanes);
    in_turns<Pair>(lanes, end, read, [&](int j, Pair value) {
        dx[start + j] = store(factor * (log ? value.b - expf(value.a) * sum : value.a * (value.b - sum)));
    });
}

// w = g * v / (|v| + eps) of each row. `norms` gets the lengths of the rows.
KERNEL weight_norm(
    IN(float) v, IN(float) g, OUT(float) w, OUT(double) norms, int rows, int width, int lanes, float eps) {
    int row = run_of_thread(lanes), end = row < rows ? width : 0;
    long long start = (long long)row * width;
    auto read = [&](int j) { return v[start + j]; };
    double own = 0.0;
    in_turns<float>(lanes, end, read, [&](int, float value) { own += (double)value * value; });
    double norm = sqrt(sum_over(own, lanes));
    float scale = end ? (float)(g[row] / (norm + eps)) : 0.0f;
    in_turns<float>(lanes, end, read, [&](int j, float value) { w[start + j] = value * scale; });
    if (end > 0 && threadIdx.x % lanes == 0) {
        norms[row] = norm;
    }
}

// The gradients of v and g, given that of w. A row of zeros has a length without a slope, for which 0 is taken.
KERNEL weight_norm_gradients(
    IN(float) v, IN(float) g, IN(double) norms, IN(float) gw, OUT(float) dv, OUT(float) dg, int rows, int width,
    int lanes, float eps) {
    int row = run_of_thread(lanes), end = row < rows ? width : 0;
    long long start = (long long)row * width;
    auto read = [&](int j) { return Pair{v[start + j], gw[start + j]}; };
    double own = 0.0;
    in_turns<Pair>(lanes, end, read, [&](int, Pair value) { own += (double)value.a * value.b; });
    double inner = sum_over(own, lanes), norm = end ? norms[row] : 1.0, scale = end ? g[row] / (norm + eps) : 0.0;
    double pull = norm == 0.0 ? 0.0 : scale * inner / (norm * (norm + eps));
    in_turns<Pair>(lanes, end, read, [&](int j, Pair value) {
        dv[start + j] = value.b * (float)scale - value.a * (float)pull;
    });
    if (end > 0 && threadIdx.x % lanes == 0) {
        dg[row] = (float)(inner / (norm + eps));
    }
}

// The rows of a table that `ids` name; NaN for an id that it has not.
KERNEL embedding(IN(float) table, IN(unsigned) ids, OUT(float) y, int rows, int count, int width, int lanes) {
    int run = run_of_thread(lanes);
    unsigned id = run < count ? ids[run] : 0;
    const float *row = table + (long long)(id < rows ? id : 0) * width;
    auto read = [&](int j) { return id < rows ? row[j] : __uint_as_float(0x7fc00000u); };
    in_turns<float>(lanes, run < count ? width : 0, read, [&](int j, float value) {
        y[(long long)run * width + j] = value;
    });
}

// The gradient of a table, given that of the rows that `ids` name: a block adds up what its columns of one row of the
// table get, in the order of the ids.
KERNEL embedding_gradient(IN(unsigned) ids, IN(float) gy, OUT(float) dtable, int count, int width) {
    __shared__ unsigned some[THREADS];
    int tiles = (width + THREADS - 1) / THREADS, column = (int)(blockIdx.x % tiles) * THREADS + threadIdx.x;
    unsigned id = blockIdx.x / tiles;
    float sum = 0.0f;
    for (int first = 0; first < count; first += THREADS) {
        __syncthreads();
        if (first + threadIdx.x < count) {
            some[threadIdx.x] = ids[first + threadIdx.x];
        }
        __syncthreads();
        int end = count - first < THREADS ? count - first : THREADS;
        for (int i = 0; i < end; i++) {
            if (some[i] == id && column < width) {
                sum += gy[(long long)(first + i) * width + column];
            }
        }
    }
    if (column < width) {
        dtable[(long long)id * width + column] = sum;
    }
}
