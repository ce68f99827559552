// Normalisation over sets of planes, then scale, shift and SiLU (if `silu` is not 0), of x: [batch, channels,
// positions].
//
// Group norm (`groups` > 0): a set is a group of channels of one item. Batch norm (`groups` is 0): a channel of all
// items. A plane, the positions of one channel of one item, is the work of `lanes` threads.

struct Sizes {
    int batch, channels, positions, groups, lanes;
};

DEVICE int set_of(Sizes s, int plane) {
    int item = plane / s.channels, c = plane % s.channels;
    return s.groups > 0 ? item * s.groups + c / (s.channels / s.groups) : c;
}

DEVICE int sets_of(Sizes s) {
    return s.groups > 0 ? s.batch * s.groups : s.channels;
}

DEVICE int planes_of_set(Sizes s) {
    return s.groups > 0 ? s.channels / s.groups : s.batch;
}

DEVICE int plane_of_set(Sizes s, int set, int i) {
    return s.groups > 0 ? set * planes_of_set(s) + i : i * s.channels + set;
}

// The mean of each plane and its sum of squares about it.
KERNEL plane_moments(IN(element) x, OUT(double) table, int batch, int channels, int positions, int lanes) {
    int plane = run_of_thread(lanes), end = plane < batch * channels ? positions : 0;
    const element *at = x + (long long)plane * positions;
    auto read = [&](int j) { return load(at[j]); };
    double own = 0.0;
    in_turns<float>(lanes, end, read, [&](int, float value) { own += value; });
    double mean = sum_over(own, lanes) / positions;
    own = 0.0;
    in_turns<float>(lanes, end, read, [&](int, float value) { own += (value - mean) * (value - mean); });
    double squares = sum_over(own, lanes);
    if (end > 0 && threadIdx.x % lanes == 0) {
        table[2 * plane] = mean;
        table[2 * plane + 1] = squares;
    }
}

// The mean and the reciprocal standard deviation of each set, put together from its planes (Chan et al. 1979). A set is
// the work of `lanes` threads.
KERNEL set_moments(
    IN(double) table, OUT(float) stats, int batch, int channels, int positions, int groups, int lanes, float eps) {
    Sizes s = {batch, channels, positions, groups, lanes};
    int set = run_of_thread(lanes);
    int planes = planes_of_set(s), end = set < sets_of(s) ? planes : 0;
    double own = 0.0;
    for (int i = threadIdx.x % lanes; i < end; i += lanes) {
        own += table[2 * plane_of_set(s, set, i)];
    }
    double mean = sum_over(own, lanes) / planes;
    own = 0.0;
    for (int i = threadIdx.x % lanes; i < end; i += lanes) {
        int plane = plane_of_set(s, set, i);
        double away = table[2 * plane] - mean;
        own += table[2 * plane + 1] + positions * away * away;
    }
    double squares = sum_over(own, lanes);
    if (end > 0 && threadIdx.x % lanes == 0) {
        stats[2 * set] = (float)mean;
        stats[2 * set + 1] = (float)(1.0 / sqrt(squares / ((double)planes * positions) + eps));
    }
}

KERNEL normalise(
    IN(element) x, IN(float) gamma, IN(float) beta, IN(float) stats, OUT(element) y, int batch, int channels,
    int positions, int groups, int lanes, int silu) {
    Sizes s = {batch, channels, positions, groups, lanes};
    int plane = run_of_thread(lanes);
    if (plane >= batch * channels) {
        return;
    }
    int set = set_of(s, plane), c = plane % channels;
    float mean = stats[2 * set], scale = stats[2 * set + 1] * gamma[c], shift = beta[c];
    long long start = (long long)plane * positions;
    auto read = [&](int j) { return load(x[start + j]); };
    in_turns<float>(lanes, positions, read, [&](int j, float value) {
        float z = (value - mean) * scale + shift;
        y[start + j] = store(silu ? z * sigmoid(z) : z);
    });
}

// What reaches the scaled and shifted numbers of each plane, given the gradient of y: its sum, and its sum times the
// normalised numbers.
KERNEL plane_slopes(
    IN(element) x, IN(float) gamma, IN(float) beta, IN(float) stats, IN(element) gy, OUT(double) table, int batch,
    int channels, int positions, int groups, int lanes, int silu) {
    Sizes s = {batch, channels, positions, groups, lanes};
    int plane = run_of_thread(lanes), end = plane < batch * channels ? positions : 0;
    int set = end ? set_of(s, plane) : 0, c = plane % channels;
    float mean = stats[2 * set], rstd = stats[2 * set + 1], scale = gamma[c], shift = beta[c];
    long long start = (long long)plane * positions;
    double sum = 0.0, product = 0.0;
    auto read = [&](int j) { return Pair{load(x[start + j]), load(gy[start + j])}; };
    in_turns<Pair>(lanes, end, read, [&](int, Pair value) {
        float h = (value.a - mean) * rstd;
        float g = value.b * (silu ? slope_of_silu(scale * h + shift) : 1.0f);
        sum += g;
        product += (double)g * h;
    });
    sum = sum_over(sum, lanes);
    product = sum_over(product, lanes);
    if (end > 0 && threadIdx.x % lanes == 0) {
        table[2 * plane] = sum;
        table[2 * plane + 1] = product;
    }
}

// The gradients of gamma and beta. A channel is the work of `lanes` threads.
KERNEL channel_slopes(IN(double) table, OUT(float) dgamma, OUT(float) dbeta, int batch, int channels, int lanes) {
    int c = run_of_thread(lanes);
    double sum = 0.0, product = 0.0;
    for (int i = threadIdx.x % lanes; c < channels && i < batch; i += lanes) {
        sum += table[2 * (i * channels + c)];
        product += table[2 * (i * channels + c) + 1];
    }
    sum = sum_over(sum, lanes);
    product = sum_over(product, lanes);
    if (c < channels && threadIdx.x % lanes == 0) {
        dgamma[c] = (float)product;
        dbeta[c] = (float)sum;
    }
}

// The means over each set of what reaches its normalised numbers, and of that times them. A set is the work of `lanes`
// threads.
KERNEL set_slopes(
    IN(double) table, IN(float) gamma, OUT(float) means, int batch, int channels, int positions, int groups,
    int lanes) {
    Sizes s = {batch, channels, positions, groups, lanes};
    int set = run_of_thread(lanes);
    int planes = planes_of_set(s), end = set < sets_of(s) ? planes : 0;
    double sum = 0.0, product = 0.0, n = (double)planes * positions;
    for (int i = threadIdx.x % lanes; i < end; i += lanes) {
        int plane = plane_of_set(s, set, i);
        sum += gamma[plane % channels] * table[2 * plane];
        product += gamma[plane % channels] * table[2 * plane + 1];
    }
    sum = sum_over(sum, lanes);
    product = sum_over(product, lanes);
    if (end > 0 && threadIdx.x % lanes == 0) {
        means[2 * set] = (float)(sum / n);
        means[2 * set + 1] = (float)(product / n);
    }
}

// The gradient of x, given that of y. Without `means` the moments are constants.
KERNEL norm_data_gradient(
    IN(element) x, IN(float) gamma, IN(float) beta, IN(float) stats, IN(element) gy, IN(float) means, OUT(element) dx,
    int batch, int channels, int positions, int groups, int lanes, int silu) {
    Sizes s = {batch, channels, positions, groups, lanes};
    int plane = run_of_thread(lanes);
    if (plane >= batch * channels) {
        return;
    }
    int set = set_of(s, plane), c = plane % channels;
    float mean = stats[2 * set], rstd = stats[2 * set + 1], scale = gamma[c], shift = beta[c];
    float sum = means ? means[2 * set] : 0.0f, product = means ? means[2 * set + 1] : 0.0f;
    long long start = (long long)plane * positions;
    auto read = [&](int j) { return Pair{load(x[start + j]), load(gy[start + j])}; };
    in_turns<Pair>(lanes, positions, read, [&](int j, Pair value) {
        float h = (value.a - mean) * rstd;
        float g = value.b * scale * (silu ? slope_of_silu(scale * h + shift) : 1.0f);
        dx[start + j] = store(rstd * (g - sum - h * product));
    });
}
